"""Which dimensions of two factors and of their product belong together, as letters of einsum."""

from collections.abc import Sequence

from ._contract import pointwise

Letters = tuple[str, str, str]  # of the first factor, of the second, of the product
_POINTWISE = frozenset({"mul", "multiply", "__mul__", "__rmul__"})
_MATRICES = frozenset({"matmul", "mm", "bmm", "mv", "dot", "__matmul__"})


def pointwise_letters(*ranks: int) -> Letters:
    """Return the letters of an operation on each entry, with broadcasting.

    >>> pointwise_letters(2, 1)
    ('ba', 'a', 'ba')
    """
    left, right = ranks
    return pointwise(left), pointwise(right), pointwise(max(ranks))


def product_letters(name: str, ranks: Sequence[int], equation: str | None = None) -> Letters | None:
    """Return the letters of a product of two tensors; None where they are not known.

    >>> product_letters("matmul", (3, 2))
    ('cxz', 'zy', 'cxy')
    """
    left, right = ranks
    if name in _POINTWISE:
        return pointwise_letters(left, right)
    if name == "linear" and right == 2 and left:
        batch = pointwise(left - 1)
        return batch + "z", "yz", batch + "y"
    if name in _MATRICES and left and right:
        batches = pointwise(max(left - 2, 0)), pointwise(max(right - 2, 0))
        batches = tuple("".join(chr(ord(letter) + 2) for letter in batch) for batch in batches)
        rows, columns = "x" * (left > 1), "y" * (right > 1)
        return batches[0] + rows + "z", batches[1] + "z" + columns, max(batches, key=len) + rows + columns
    return _of_equation(equation, ranks) if name == "einsum" and equation else None


def _of_equation(equation: str, ranks: Sequence[int]) -> Letters | None:
    operands, arrow, out = equation.replace(" ", "").partition("->")
    words = operands.split(",")
    if not arrow or len(words) != 2 or not (operands + out).replace(",", "").islower():
        return None  # an ellipsis, capitals, or an implicit result
    if [len(word) for word in words] != list(ranks) or any(len(set(word)) < len(word) for word in (*words, out)):
        return None
    return words[0], words[1], out

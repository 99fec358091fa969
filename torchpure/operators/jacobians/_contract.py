"""Products of parts: terms of the product rule, and sums over coordinates of two Jacobians; as einsum."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ._parts import Part, refine_axes

Operand = tuple[Tensor, str]  # a tensor, and a letter for each of its dimensions


def multiply_parts(part: Part, letters: str, other: Operand | None, out: str) -> Part:
    """Return the Jacobian of a product in which one factor is constant; without another factor, of a sum.

    `letters` and `out` name the dimensions of the value before and after. An axis that is tied to a dimension that is
    summed over becomes free: no zeros are stored or multiplied.
    """
    names = [_free(axis) if tie is None else letters[tie] for axis, tie in enumerate(part.ties)]
    ties = tuple(out.index(name) if name in out else None for name in names)
    free = "".join(_free(axis) for axis, tie in enumerate(part.ties) if tie is None)
    sizes = _sizes((part.rows, free + letters), *([other] if other else []))
    wanted = "".join(name for name, tie in zip(names, ties, strict=True) if tie is None) + out
    if part.unit and other:
        # rows of transposed memory would pass their layout on to all later rows, whose products are then slower
        return Part(part.leaf, part.axes, ties, _einsum([other], wanted, sizes, dense=True))
    operands = [(part.rows, free + letters), *([other] if other else [])]
    return Part(part.leaf, part.axes, ties, _einsum(operands, wanted, sizes))


def reduce_part(part: Part, dims: Sequence[int], keepdim: bool) -> Part:
    """Return the Jacobian of the sum over dimensions."""
    letters = pointwise(len(part.shape))
    kept = [dim for dim in range(len(part.shape)) if dim not in dims]
    summed = multiply_parts(part, letters, None, "".join(letters[dim] for dim in kept))
    if not keepdim:
        return summed
    rows, first = summed.rows, summed.num_free
    for dim in sorted(dims):
        rows = rows.unsqueeze(first + dim)
    return replace(summed, rows=rows, ties=tuple(None if tie is None else kept[tie] for tie in summed.ties))


def pair_products(a: Sequence[Part], b: Sequence[Part], letters: tuple[str, str, str]) -> Tensor | None:
    """Return Σ over coordinates of the product of the derivatives of two factors; None: zero.

    `letters` name the dimensions of the first factor, of the second, and of the result.
    """
    both = [refine_axes([left, right]) for left in a for right in b if left.leaf == right.leaf]
    products = [_pair(left, right, letters) for left, right in both]
    return sum(products[1:], products[0]) if products else None


def _pair(a: Part, b: Part, letters: tuple[str, str, str]) -> Tensor:
    """Sum over the coordinates: an index of an axis is the same in both factors, so its two names become one."""
    left, right, out = letters
    equal: list[tuple[str, str]] = []
    for axis, ties in enumerate(zip(a.ties, b.ties, strict=True)):
        one, other = (_free(axis) if tie is None else word[tie] for tie, word in zip(ties, (left, right), strict=True))
        if one != other:
            equal.append((one, other))
    sizes = _sizes(*((part.rows, _word(part, word)) for part, word in ((a, left), (b, right))))
    operands = [_without_ones(part.rows, _word(part, word)) for part, word in ((a, left), (b, right))]
    renamed, kept = _unify(equal, out)
    words = ["".join(renamed.get(name, name) for name in word) for _, word in operands]
    diagonal = "".join(name for name in out if renamed.get(name, name) == name)
    made = _einsum([(tensor, word) for (tensor, _), word in zip(operands, words, strict=True)], diagonal, sizes)
    for gone, name in kept:
        made, diagonal = _on_diagonal(made, diagonal, gone, name, out)
    return made


def _unify(equal: list[tuple[str, str]], out: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Choose one name of each equal pair: (old -> new, pairs of which both are in the result)."""
    renamed, both = {}, []
    for pair in equal:
        one, other = (_last(renamed, name) for name in pair)
        if one == other:
            continue
        gone, name = (one, other) if one not in out else (other, one)
        if gone in out:
            both.append((gone, name))
        renamed[gone] = name
    return {gone: _last(renamed, gone) for gone in renamed}, both[::-1]


def _last(renamed: Mapping[str, str], name: str) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _on_diagonal(made: Tensor, word: str, gone: str, name: str, out: str) -> tuple[Tensor, str]:
    """Add the dimension `gone`: zero where its index is not that along `name`."""
    wider = "".join(letter for letter in out if letter in word or letter == gone)
    made = made.unsqueeze(wider.index(gone))
    size = made.shape[wider.index(name)]
    shape = [size if letter in (gone, name) else 1 for letter in wider]
    same = torch.eye(size, dtype=torch.bool, device=made.device).reshape(shape)
    return torch.where(same, made, 0), wider


def pointwise(rank: int) -> str:
    """Return one letter for each dimension, counted from the last."""
    return "".join(chr(ord("a") + place) for place in range(rank))[::-1]


def _free(axis: int) -> str:
    return chr(ord("A") + axis)


def _word(part: Part, letters: str) -> str:
    return "".join(_free(axis) for axis, tie in enumerate(part.ties) if tie is None) + letters


def _sizes(*operands: Operand) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for tensor, word in operands:
        for size, name in zip(tensor.shape, word, strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    return sizes


def _without_ones(tensor: Tensor, word: str) -> Operand:
    """Drop dimensions of size one: einsum would broadcast them, but cannot name them like another one."""
    ones = tuple(dim for dim, size in enumerate(tensor.shape) if size == 1)
    if not ones:
        return tensor, word
    return tensor.squeeze(ones), "".join(name for dim, name in enumerate(word) if dim not in ones)


def _einsum(operands: Sequence[Operand], out: str, sizes: Mapping[str, int], dense: bool = False) -> Tensor:
    """Multiply and sum. A dimension of the result that no operand has is broadcast."""
    operands = [_without_ones(*operand) for operand in operands]
    present = {name for _, word in operands for name in word}
    words, found = ",".join(word for _, word in operands), "".join(name for name in out if name in present)
    made = operands[0][0] if words == found else torch.einsum(f"{words}->{found}", *(one for one, _ in operands))
    made = made.contiguous() if dense else made
    if found != out:
        for dim, name in enumerate(out):
            made = made if name in present else made.unsqueeze(dim)
        made = made.expand([sizes[name] for name in out])
    return made

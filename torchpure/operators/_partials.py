"""Partial derivatives by the names of coordinates."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms import jvp
from torchpure.transforms.calls import hint_keywords
from torchpure.transforms.derivatives import Argnums
from torchpure.transforms.engine import describe_function

from ._forms import of_pairs
from ._point import Point, operator
from ._second_order import Pass, rows_along, second_order

Word = str | Sequence[str | int]  # "xxt", ("x", "x", "t") or (0, 0, 1)
Numbers = tuple[int, ...]  # the coordinates of one derivative, sorted


@hint_keywords()
def partials(
    fn: Callable[..., Any],
    words: Sequence[Word],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    coordinates: str | Sequence[str] | None = None,
    with_value: bool = False,
) -> Callable[..., Any]:
    """Return the function that computes several partial derivatives: a tuple, in the order of the words.

    "xxt" is ∂³f/∂x²∂t, "" the value itself; (0, 0, 1) says the same by position. The names are those of the arguments
    of `fn`, tensors with one entry. With `coordinates="xt"` they are the entries of the arguments in `argnums`. All of
    order up to two come from one pass. With `with_value` the result is (value, tuple).

    Law: `partials(f, words)(*args)` has what `partial(f, word)(*args)` gives for each word.

    Raises:
        TransformError: a name is unknown, a word of `partial` is empty, or an argument has several entries.

    >>> import torch
    >>> u = lambda x, t: x**3 * t
    >>> partials(u, ("t", "x", "xx"))(torch.tensor(2.0), torch.tensor(1.0))
    (tensor(8.), tensor(12.), tensor(12.))
    """
    return _partials("partials", fn, words, argnums, has_aux, coordinates, with_value)


@hint_keywords()
def partial(
    fn: Callable[..., Any],
    word: Word,
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    coordinates: str | Sequence[str] | None = None,
    with_value: bool = False,
) -> Callable[..., Any]:
    """Return the function that computes one partial derivative, such as "xxt" for ∂³f/∂x²∂t; see `partials`.

    Law: `partial(f, "xt") == partial(f, "tx")`.

    Raises:
        TransformError: a name is unknown, the order is below one, or an argument has several entries.

    >>> import torch
    >>> partial(lambda x, t: x**3 * t, "xxt")(torch.tensor(2.0), torch.tensor(1.0))
    tensor(12.)
    """
    if isinstance(word, int) or not len(word):
        raise TransformError(
            f"partial: the order of the derivative of {describe_function(fn)} must be at least 1: wanted a name for "
            f'each derivative, such as "x" or "xxt", got {word!r}'
        )
    return _partials("partial", fn, (word,), argnums, has_aux, coordinates, with_value)


def _partials(
    caller: str,
    fn: Callable[..., Any],
    words: Sequence[Word],
    argnums: Argnums,
    has_aux: bool,
    coordinates: str | Sequence[str] | None,
    with_value: bool,
) -> Callable[..., Any]:
    if isinstance(words, str):
        raise TransformError(f"partials: wanted a tuple of words, got {words!r}: for one write ({words!r},)")
    odd = next((one for one in ([words] if words is None else words) if not isinstance(one, str | tuple | list)), ())
    if odd != ():
        raise TransformError(
            f'{caller}: a derivative is a word such as "xxt", or a tuple of names or numbers, such as (0, 0, 1); got '
            f"{odd!r}"
        )
    names = list(coordinates) if coordinates is not None else _argument_names(fn)
    numbers = [_numbers(caller, fn, word, names) for word in words]
    if coordinates is None:
        argnums = tuple(sorted({number for word in numbers for number in word})) or (0,)
        numbers = [tuple(map(argnums.index, word)) for word in numbers]

    def run(point: Point) -> tuple[Tree, Tree]:
        _check_coordinates(point, names if coordinates is not None else None)
        wanted = list(dict.fromkeys([*numbers, ()] if with_value else numbers))
        found, aux = _evaluate(point, point.leaves, wanted)
        by_word = dict(zip(wanted, found, strict=True))
        result = tuple(by_word[one] for one in numbers)
        result = result[0] if caller == "partial" else result
        return ((by_word[()], result) if with_value else result), aux

    return operator(caller, fn, argnums, has_aux, run)


def _argument_names(fn: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return []


def _numbers(caller: str, fn: Callable[..., Any], word: Word, names: list[str]) -> Numbers:
    """Return the coordinates of a word; their order has no meaning."""
    found = []
    for one in word:
        if isinstance(one, int) and not isinstance(one, bool) and one >= 0:
            found.append(one)
        elif one in names:
            found.append(names.index(str(one)))
        else:
            raise TransformError(
                f"{caller}: {describe_function(fn)} has no coordinate {one!r} of {word!r}: there are "
                f"{', '.join(map(repr, names)) or 'no names'}. Names of several letters stand in a tuple; "
                'coordinates="xt" names the entries of one argument'
            )
    return tuple(sorted(found))


def _check_coordinates(point: Point, names: list[str] | None) -> None:
    if names is None and any(size != 1 for size in point.sizes):
        got = ", ".join(map(tree.describe, point.leaves))
        raise TransformError(
            f"{point.caller}: each argument of {describe_function(point.fn)} must have one entry, got {got}. "
            'Name the entries of a vector with coordinates="xt", and use tp.vmap for many points'
        )
    if names is not None and sum(point.sizes) != len(names):
        raise TransformError(
            f"{point.caller}: {len(names)} names of coordinates, {', '.join(names)}, for a point of "
            f"{describe_function(point.fn)} with {sum(point.sizes)} entries"
        )


def _evaluate(point: Point, leaves: Sequence[Tensor], words: list[Numbers]) -> tuple[list[Tree], Tree]:
    """Return the derivatives of these words, and aux: up to order two in one pass, others by derivatives of these."""
    _check_numbers(point, words)
    found, aux = _low_orders(point, leaves, [word for word in words if len(word) <= 2])
    for first in dict.fromkeys(word[0] for word in words if len(word) > 2):
        group = [word for word in words if len(word) > 2 and word[0] == first]
        direction = tuple(vectors[first] for vectors in point.basis())
        tails = lambda *at, group=group: _evaluate(point, at, [word[1:] for word in group])  # noqa: E731
        _, moved, aux = jvp(tails, tuple(leaves), direction, has_aux=True)
        found.update(zip(group, moved, strict=True))
    return [found[word] for word in words], aux


def _check_numbers(point: Point, words: list[Numbers]) -> None:
    for word in words:
        if word and word[-1] >= sum(point.sizes):
            raise TransformError(
                f"{point.caller}: {describe_function(point.fn)} has no coordinate {word[-1]}: there are "
                f"{sum(point.sizes)}, from 0"
            )


def _low_orders(point: Point, leaves: Sequence[Tensor], words: list[Numbers]) -> tuple[dict[Numbers, Tree], Tree]:
    if not words:
        return {}, None
    used = sorted({number for word in words for number in word})
    if not used:
        value, aux = point.call(*leaves)
        return {(): value}, aux
    rows = {number: row for row, number in enumerate(used)}
    pairs = [word for word in words if len(word) == 2]
    directions = [vectors[used] for vectors in point.basis()]
    if pairs:
        form = of_pairs([(rows[i], rows[j]) for i, j in pairs])
        found = second_order(point.call, leaves, directions, form)
    else:
        found = rows_along(point.call, leaves, directions)
    parts: dict[Numbers, Tree] = {(): found.value}
    for number, row in rows.items():
        parts[number,] = tree.map(lambda part, row=row: part[row], found.first)
    if isinstance(found, Pass):
        for row, pair in enumerate(pairs):
            parts[pair] = tree.map(lambda part, row=row: part[row], found.second)
    return parts, found.aux

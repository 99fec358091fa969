"""Sums of derivatives of one order along many directions (Dangel et al. 2025, arXiv:2505.13644, section 3).

The last coefficient of a Taylor series enters linearly everywhere. So it is summed over the directions at the start,
and each operation carries one last coefficient in place of one for each direction.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.transforms import jvp, vmap
from torchpure.transforms.engine import is_variable

from ._follow import Application, Follow, Unfollowed
from ._taylor import nested_series, orders, taylor
from .rules import SERIES, Series, composed, recurrence_of


class Collapsed(NamedTuple):
    """The series of one value along R directions, of order K; None is zero."""

    rows: Series  # coefficients of t to t^(K-1), each of shape (R, *value)
    last: Tensor | None  # (*value): the sum of the coefficients of t^K


class CollapsedTaylor:
    """The rules for series whose last coefficients are summed."""

    composites = SERIES

    def __init__(self, order: int, count: int) -> None:
        self._order, self._count = order, count

    def linear(self, app: Application[Collapsed]) -> list[Collapsed]:
        """Apply the operation to each coefficient."""
        return self._each(app, app.call)

    def affine(self, app: Application[Collapsed]) -> list[Collapsed]:
        """Push each coefficient through the operation."""
        return self._each(app, lambda *parts: jvp(app.call, tuple(app.values), parts)[1])

    def _each(self, app: Application[Collapsed], rule: Callable[..., tuple[Tensor, ...]]) -> list[Collapsed]:
        columns = zip(*(one.rows for one in app.entries.values()), strict=True)
        rows = [_applied(app, column, vmap(rule)) for column in columns]
        last = _applied(app, [one.last for one in app.entries.values()], rule)
        return [Collapsed([parts[n] for parts in rows], last[n]) for n in range(len(app.kept))]

    def product(self, app: Application[Collapsed]) -> list[Collapsed]:
        """Apply the rule of Leibniz."""
        (a, b), (left, right) = app.values, app.entries.values()
        rows, with_b, with_a = vmap(app.one), vmap(app.one, in_dims=(0, None)), vmap(app.one, in_dims=(None, 0))
        found: Series = []
        for k in range(1, self._order + 1):
            pairs = [(left.rows[i - 1], right.rows[k - i - 1]) for i in range(1, k)]
            parts = [rows(u, v) for u, v in pairs if u is not None and v is not None]
            if k < self._order:
                u, v = left.rows[k - 1], right.rows[k - 1]
                parts += [with_b(u, b)] if u is not None else []
                parts += [with_a(a, v)] if v is not None else []
            found.append(sum(parts[1:], parts[0]) if parts else None)
        last = _summed(found[-1])
        for part in ([app.one(left.last, b)] if left.last is not None else []) + (
            [app.one(a, right.last)] if right.last is not None else []
        ):
            last = part if last is None else last + part
        return [Collapsed(found[:-1], last)]

    def elementwise(self, app: Application[Collapsed], value: Tensor) -> list[Collapsed]:
        """Apply a recurrence to the rows, and f′ to the sum."""
        (at,), (entry,) = app.values, app.entries.values()
        recurrence, ones = recurrence_of(app.func), torch.ones_like(at)
        if recurrence is not None:
            found = recurrence(at, value, [*entry.rows, None])
            slope = recurrence(at, value, [ones])[0]
        else:
            derivatives = orders(lambda one: app.one(one), at, ones, self._order)[1:]
            found, slope = composed(derivatives, [*entry.rows, None]), derivatives[0]
        last = _summed(found[-1])
        if entry.last is not None and slope is not None:
            last = slope * entry.last if last is None else last + slope * entry.last
        return [Collapsed(found[:-1], last)]

    def generic(self, app: Application[Collapsed]) -> list[Collapsed]:
        """Differentiate along each curve by nested forward derivatives."""
        entries = list(app.entries.values())
        filled = [
            [_filled(part, at, self._count) for part in one.rows] for one, at in zip(entries, app.values, strict=True)
        ]

        def along(*rows: list[Tensor]) -> list[Series]:
            return nested_series(app.call, app.values, [[*row, None] for row in rows], self._order)

        found = vmap(along)(*filled)
        pushed = _applied(app, [one.last for one in entries], lambda *parts: jvp(app.call, tuple(app.values), parts)[1])
        totals = [_summed(series[-1]) for series in found]
        return [
            Collapsed(series[:-1], total if last is None or total is None else total + last)
            for series, total, last in zip(found, totals, pushed, strict=True)
        ]


def _applied(app: Application[Any], parts: Sequence[Tensor | None], rule: Callable[..., tuple[Tensor, ...]]) -> Series:
    """Apply a rule to one coefficient of each operand."""
    known = next((number for number, part in enumerate(parts) if part is not None), None)
    if known is None:
        return [None] * len(app.kept)
    part = parts[known]
    assert part is not None
    count = len(part) if part.ndim > app.values[known].ndim else None
    return list(rule(*(_filled(one, at, count) for one, at in zip(parts, app.values, strict=True))))


def _filled(part: Tensor | None, value: Tensor, count: int | None) -> Tensor:
    if part is not None:
        return part
    return torch.zeros_like(value) if count is None else value.new_zeros((count, *value.shape))


def _summed(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.sum(0)


def sum_of_series(
    call: Callable[..., Any], leaves: Sequence[Tensor], directions: Sequence[Tensor], order: int
) -> tuple[Tree, Tree]:
    """Return the sum over directions v of the coefficients of t^K of `call(leaves + t v)`, like the value, and aux.

    Directions have shape (R, *leaf) for each leaf; `call` returns (value, aux); the order is at least two.
    """

    def run(*at: Tensor) -> Any:
        mode: Follow[Collapsed] = Follow(CollapsedTaylor(order, directions[0].shape[0]))
        for leaf, direction in zip(at, directions, strict=True):
            mode.set(leaf, Collapsed([direction, *[None] * (order - 2)], None))
        with mode:
            value, aux = call(*at)
        outputs, structure = tree.flatten(value)
        last = [(entry.last if (entry := mode.get(leaf)) else None) for leaf in outputs]
        full = [
            torch.zeros_like(leaf) if one is None and is_variable(leaf) else one
            for one, leaf in zip(last, outputs, strict=True)
        ]
        return value, (tree.unflatten(structure, full), aux)

    def along(*direction: Tensor) -> tuple[Tree, Tree]:
        value, found, aux = taylor(call, leaves, [[part, *[None] * (order - 1)] for part in direction])
        terms = iter(found)
        return tree.map(lambda leaf: next(terms)[-1] if is_variable(leaf) else None, value), aux

    try:
        if is_dynamo_compiling():  # it traces no function modes
            raise Unfollowed
        return jvp(run, tuple(leaves), tuple(map(torch.ones_like, leaves)), has_aux=True)[2]
    except Unfollowed:
        terms, aux = vmap(along, out_dims=(0, None))(*directions)
        return tree.map(lambda part: part.sum(0), terms), aux

"""The bilaplacian in one pass: what it needs of the derivatives up to order four, and no more.

The sums over directions are collapsed before the last layer (Dangel et al. 2025, arXiv:2505.13644): third derivatives
are needed only as ∂_i Δ, fourth ones only as Δ². Values carry 1 + D + D(D + 1)/2 + D + 1 tensors, where a Laplacian of
a Laplacian carries (D + 2)². Where the pass does not apply, `Unfollowed` is raised.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.transforms import jvp, vmap
from torchpure.transforms.engine import is_variable

from ._follow import Application, Follow, Unfollowed
from ._taylor import orders
from .rules import SERIES, is_kinked, kink_of, recurrence_of, warn_of_kinks

Part = Tensor | None  # None: zero


class Derivatives(NamedTuple):
    """The derivatives of one value."""

    first: Tensor  # (D, *value): ∂_i
    second: Part  # (D(D + 1)/2, *value): ∂_i ∂_j for i ≤ j
    third: Part  # (D, *value): ∂_i Δ
    fourth: Part  # (*value): Δ²


class FourthOrder:
    """The rules of the pass."""

    composites = SERIES

    def __init__(self, dims: int, like: Tensor) -> None:
        rows, columns = torch.triu_indices(dims, dims, device=like.device)
        self._rows, self._columns = rows, columns
        self._diagonal = (rows == columns).nonzero()[:, 0]
        self._index = torch.empty(dims, dims, dtype=torch.int64, device=like.device)
        self._index[rows, columns] = self._index[columns, rows] = torch.arange(len(rows), device=like.device)

        self.kink: str | None = None  # the first activation that is linear between kinks

    def laplacian(self, entry: Derivatives) -> Part:
        """Return Δ, the trace of the second derivatives."""
        return None if entry.second is None else entry.second[self._diagonal].sum(0)

    def linear(self, app: Application[Derivatives]) -> list[Derivatives]:
        """Apply the operation to all derivatives."""
        return self._each(app, app.call)

    def affine(self, app: Application[Derivatives]) -> list[Derivatives]:
        """Push all derivatives through the operation."""
        return self._each(app, lambda *parts: jvp(app.call, tuple(app.values), parts)[1])

    def _each(self, app: Application[Derivatives], rule: Callable[..., tuple[Tensor, ...]]) -> list[Derivatives]:
        found: list[list[Part]] = [[] for _ in app.kept]
        for number, column in enumerate(zip(*app.entries.values(), strict=True)):
            parts: Sequence[Part] = [None] * len(found)
            if any(part is not None for part in column):
                count = next(len(part) for part in column if part is not None) if number < 3 else None
                filled = [_filled(part, at, count) for part, at in zip(column, app.values, strict=True)]
                parts = rule(*filled) if count is None else vmap(rule)(*filled)
            for one, part in zip(found, parts, strict=True):
                one.append(part)
        return [Derivatives(*one) for one in found]  # pyrefly: ignore[bad-argument-type]  the first is no None

    def elementwise(self, app: Application[Derivatives], value: Tensor) -> list[Derivatives]:
        """Apply the chain rule: Δ²f(u) = f′Δ²u + f″(…) + f‴(…) + f⁗|∇u|⁴."""
        (at,), (entry,) = app.values, app.entries.values()
        f1, f2, f3, f4 = _four(app, at, value)
        if entry.second is None:
            self.kink = self.kink or kink_of(app.func)
        slope, curve = entry.first, self._full(entry.second)
        lap, square = self.laplacian(entry), slope.square().sum(0)
        turn = None if curve is None else (curve * slope).sum(1)  # Σ_j ∂_i∂_j u ∂_j u
        second = _plus(_times(f1, entry.second), _times(f2, slope[self._rows] * slope[self._columns]))
        bent = _plus(_times(lap, slope), None if turn is None else 2 * turn)
        third = _plus(_times(f1, entry.third), _times(f2, bent), _times(f3, square * slope))
        pairs = None if lap is None or curve is None else lap.square() + 2 * curve.square().sum((0, 1))
        along = None if entry.third is None else 4 * (slope * entry.third).sum(0)
        mixed = None if lap is None or turn is None else 2 * square * lap + 4 * (slope * turn).sum(0)
        fourth = _plus(
            _times(f1, entry.fourth),
            _times(f2, _plus(along, pairs)),
            _times(f3, mixed),
            _times(f4, square.square()),
        )
        first = torch.zeros_like(slope) if f1 is None else f1 * slope
        return [Derivatives(first, second, third, fourth)]

    def product(self, app: Application[Derivatives]) -> list[Derivatives]:
        """Apply the rule of Leibniz to a product of two values."""
        (a, b), (left, right) = app.values, app.entries.values()
        rows, one = vmap(app.one), app.one
        with_b, with_a = vmap(lambda part: one(part, b)), vmap(lambda part: one(a, part))
        i, j = self._rows, self._columns
        first = with_b(left.first) + with_a(right.first)
        crossed = rows(left.first[i], right.first[j]) + rows(left.first[j], right.first[i])
        second = _plus(crossed, _map(with_b, left.second), _map(with_a, right.second))
        lap_a, lap_b = self.laplacian(left), self.laplacian(right)
        full_a, full_b = self._full(left.second), self._full(right.second)
        third = _plus(
            _map(with_b, left.third),
            _map(with_a, right.third),
            _map(lambda lap: vmap(lambda part: one(lap, part))(right.first), lap_a),
            _map(lambda lap: vmap(lambda part: one(part, lap))(left.first), lap_b),
            _map(lambda full: 2 * vmap(lambda row: rows(row, right.first).sum(0))(full), full_a),
            _map(lambda full: 2 * vmap(lambda row: rows(left.first, row).sum(0))(full), full_b),
        )
        fourth = _plus(
            _map(lambda part: one(part, b), left.fourth),
            _map(lambda part: one(a, part), right.fourth),
            _map(lambda part: 4 * rows(part, right.first).sum(0), left.third),
            _map(lambda part: 4 * rows(left.first, part).sum(0), right.third),
        )
        if lap_a is not None and lap_b is not None and full_a is not None and full_b is not None:
            fourth = _plus(fourth, 2 * one(lap_a, lap_b), 4 * vmap(rows)(full_a, full_b).sum((0, 1)))
        return [Derivatives(first, second, third, fourth)]

    def generic(self, app: Application[Derivatives]) -> NoReturn:
        """Leave the function to Laplacians of Laplacians."""
        raise Unfollowed

    def _full(self, pairs: Part) -> Part:
        return None if pairs is None else pairs[self._index]  # (D, D, *value)


def _four(app: Application[Derivatives], at: Tensor, value: Tensor) -> list[Part]:
    """Return the first four derivatives of a function of each entry."""
    ones = torch.ones_like(at)
    if is_kinked(app.func):
        return [orders(lambda one: app.one(one), at, ones, 1)[1], None, None, None]
    recurrence = recurrence_of(app.func)
    if recurrence is None:
        return list(orders(lambda one: app.one(one), at, ones, 4)[1:])
    series = recurrence(at, value, [ones, None, None, None])
    return [None if part is None else part * factor for part, factor in zip(series, (1, 2, 6, 24), strict=True)]


def _filled(part: Part, value: Tensor, count: int | None) -> Tensor:
    if part is not None:
        return part
    return torch.zeros_like(value) if count is None else value.new_zeros((count, *value.shape))


def _plus(*parts: Part) -> Part:
    found: Part = None
    for part in parts:
        found = part if found is None else found if part is None else found + part
    return found


def _times(a: Part, b: Part) -> Part:
    return None if a is None or b is None else a * b


def _map(rule: Callable[[Tensor], Tensor], part: Part) -> Part:
    return None if part is None else rule(part)


def fourth_order(call: Callable[..., Any], leaves: Sequence[Tensor], basis: Sequence[Tensor]) -> tuple[Tree, ...]:
    """Return (value, Δ, Δ², aux) of `call(*leaves) -> (value, aux)` along a basis, of shape (D, *leaf) for each leaf.

    Raises:
        Unfollowed: the function has an operation without a rule.
    """

    def run(*at: Tensor) -> Any:
        algebra = FourthOrder(basis[0].shape[0], at[0])
        mode: Follow[Derivatives] = Follow(algebra)
        for leaf, direction in zip(at, basis, strict=True):
            mode.set(leaf, Derivatives(direction, None, None, None))
        with mode:
            value, aux = call(*at)
        outputs, structure = tree.flatten(value)
        once: list[Any] = []
        twice: list[Any] = []
        for leaf in outputs:
            entry = mode.get(leaf)
            parts = (None, None) if entry is None else (algebra.laplacian(entry), entry.fourth)
            for into, part in zip((once, twice), parts, strict=True):
                into.append(torch.zeros_like(leaf) if part is None and is_variable(leaf) else part)
        if algebra.kink and all((entry := mode.get(leaf)) is None or entry.second is None for leaf in outputs):
            warn_of_kinks(algebra.kink)
        return value, (tree.unflatten(structure, once), tree.unflatten(structure, twice), aux)

    value, _, (once, twice, aux) = jvp(run, tuple(leaves), tuple(map(torch.ones_like, leaves)), has_aux=True)
    return value, once, twice, aux

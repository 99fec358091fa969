"""Taylor mode: truncated series through a function in one pass (Bettencourt, Johnson, Duvenaud 2019)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.transforms import jvp
from torchpure.transforms.engine import is_variable

from ._follow import Application, Follow, Unfollowed
from .rules import SERIES, Series, composed, deriving, is_kinked, kink_of, recurrence_of, warn_of_kinks


class Taylor:
    """The rules for series; entry k-1 is the coefficient of t^k, None for zero."""

    composites = SERIES

    def __init__(self, order: int) -> None:
        self._order = order
        self.kink: str | None = None  # the first activation that is linear between kinks

    def linear(self, app: Application[Series]) -> list[Series]:
        """Apply the operation to each coefficient."""
        return self._each(app, app.call)

    def affine(self, app: Application[Series]) -> list[Series]:
        """Push each coefficient through the operation."""
        return self._each(app, lambda *parts: jvp(app.call, tuple(app.values), parts)[1])

    def _each(self, app: Application[Series], rule: Callable[..., tuple[Tensor, ...]]) -> list[Series]:
        found: list[Series] = [[None] * self._order for _ in app.kept]
        for k, column in enumerate(zip(*app.entries.values(), strict=True)):
            if any(part is not None for part in column):
                filled = [_filled(part, value) for part, value in zip(column, app.values, strict=True)]
                for series, part in zip(found, rule(*filled), strict=True):
                    series[k] = part
        return found

    def product(self, app: Application[Series]) -> list[Series]:
        """Apply the rule of Leibniz."""
        values, entries = app.values, app.entries.values()
        a, b = ([value, *series] for value, series in zip(values, entries, strict=True))
        found: Series = [None] * self._order
        for k in range(1, self._order + 1):
            for i in range(k + 1):
                left, right, now = a[i], b[k - i], found[k - 1]
                if left is not None and right is not None:
                    part = app.one(left, right)
                    found[k - 1] = part if now is None else now + part
        return [found]

    def elementwise(self, app: Application[Series], value: Tensor) -> list[Series]:
        """Apply a recurrence, or the formula of Faà di Bruno."""
        (series,) = app.entries.values()
        (at,) = app.values
        recurrence = recurrence_of(app.func)
        if recurrence is not None:
            return [recurrence(at, value, series)]
        ones = torch.ones_like(at)
        if is_kinked(app.func):
            self.kink = self.kink or kink_of(app.func)
            slope = orders(lambda one: app.one(one), at, ones, 1)[1]
            return [[None if part is None else slope * part for part in series]]
        return [composed(orders(lambda one: app.one(one), at, ones, self._order)[1:], series)]

    def generic(self, app: Application[Series]) -> list[Series]:
        """Differentiate along the curve by nested forward derivatives."""
        entries = list(app.entries.values())
        return deriving(app.func, lambda: nested_series(app.call, app.values, entries, self._order))


def _filled(part: Tensor | None, value: Tensor) -> Tensor:
    return torch.zeros_like(value) if part is None else part


def orders(fn: Callable[[Tensor], Tree], at: Tensor, along: Tensor, order: int) -> list[Tree]:
    """Return the value and the derivatives up to an order, along one direction.

    >>> [float(one) for one in orders(torch.square, torch.tensor(3.0), torch.tensor(1.0), 2)]
    [9.0, 6.0, 2.0]
    """
    if not order:
        return [fn(at)]
    below, moved = jvp(lambda one: orders(fn, one, along, order - 1), (at,), (along,))
    return [*below, moved[-1]]


def nested_series(
    call: Callable[..., Tree], values: Sequence[Tensor], series: list[Series], order: int
) -> list[Series]:
    """Return the coefficients of each leaf of `call` on the curves with these coefficients."""

    def on_curve(t: Tensor) -> Tree:
        return call(*(_polynomial(value, one, t) for value, one in zip(values, series, strict=True)))

    t = torch.zeros((), dtype=values[0].dtype.to_real(), device=values[0].device)
    derivatives = [tree.leaves(one) for one in orders(on_curve, t, torch.ones_like(t), order)[1:]]
    found: list[Series] = [[] for _ in derivatives[0]]
    factor = 1.0
    for k, parts in enumerate(derivatives, 1):
        factor /= k
        for one, part in zip(found, parts, strict=True):
            one.append(part if factor == 1 else part * factor)
    return found


def _polynomial(value: Tensor, series: Series, t: Tensor) -> Tensor:
    total: Any = 0
    for part in reversed(series):
        total = t * total + (0 if part is None else part)
    return value + t.to(value.dtype) * total


def taylor(call: Callable[..., Any], leaves: Sequence[Tensor], series: list[Series]) -> tuple[Tree, list[Series], Tree]:
    """Return (value, the series of each floating point leaf of the value, aux) of `call(*leaves) -> (value, aux)`."""
    order = len(series[0])

    def run(*at: Tensor) -> Any:
        algebra = Taylor(order)
        mode = Follow(algebra)
        for leaf, one in zip(at, series, strict=True):
            mode.set(leaf, one)
        with mode:
            value, aux = call(*at)
        outputs = [leaf for leaf in tree.leaves(value) if is_variable(leaf)]
        found = [mode.get(leaf) or [None] * order for leaf in outputs]
        if algebra.kink and order > 1 and all(part is None for one in found for part in one[1:]):
            warn_of_kinks(algebra.kink)
        filled = [[_filled(part, leaf) for part in one] for one, leaf in zip(found, outputs, strict=True)]
        return value, (filled, aux)

    try:
        if is_dynamo_compiling():  # it traces no function modes
            raise Unfollowed
        value, _, (found, aux) = jvp(run, tuple(leaves), tuple(map(torch.ones_like, leaves)), has_aux=True)
    except Unfollowed:
        value, aux = call(*leaves)
        alone = lambda *at: [one for one in tree.leaves(call(*at)[0]) if is_variable(one)]  # noqa: E731
        found = nested_series(alone, leaves, series, order)
    return value, found, aux

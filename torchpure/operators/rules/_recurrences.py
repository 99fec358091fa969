"""Taylor coefficients of functions of each entry, by recurrences (Griewank and Walther 2008, chapter 13).

A series is a list: entry k-1 is the coefficient of t^k, None for zero. The coefficient of t^0 stands apart.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Series = list[Tensor | None]
Recurrence = Callable[[Tensor, Tensor, Series], Series]  # (u_0, y_0, u) -> y


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a * b


def scaled(a: Tensor | None, factor: float) -> Tensor | None:
    """Multiply a coefficient by a number."""
    return a if a is None or factor == 1 else a * factor


def _convolved(a: Series, b: Series, start: int, stop: int, total: int) -> Tensor | None:
    """Return Σ a_i b_{total-i} for i from start to stop - 1; here entry i is the coefficient of t^i."""
    found: Tensor | None = None
    for i in range(start, stop):
        found = _plus(found, _times(a[i], b[total - i]))
    return found


def _integrated(u: Series, slope: Callable[[int], Tensor | None], k: int) -> Tensor | None:
    """Return y_k where y′ = w(t) u′: k y_k = Σ j u_j w_{k-j}; `slope(n)` is w_n."""
    found: Tensor | None = None
    for j in range(1, k + 1):
        found = _plus(found, _times(scaled(u[j - 1], j / k), slope(k - j) if u[j - 1] is not None else None))
    return found


def _of_own_value(square: float, linear: float, constant: float) -> Recurrence:
    """Return the recurrence of y′ = (square·y² + linear·y + constant) u′."""

    def run(at: Tensor, value: Tensor, u: Series) -> Series:
        y: Series = [value]
        slopes: Series = []

        def slope(n: int) -> Tensor | None:
            while len(slopes) <= n:
                m = len(slopes)
                one = _plus(
                    scaled(_convolved(y, y, 0, m + 1, m), square) if square else None,
                    scaled(y[m], linear) if linear else None,
                )
                slopes.append(one + constant if m == 0 and constant and one is not None else one)
            return slopes[n]

        for k in range(1, len(u) + 1):
            y.append(_integrated(u, slope, k))
        return y[1:]

    return run


def _turning(first: bool) -> Recurrence:
    def run(at: Tensor, value: Tensor, u: Series) -> Series:
        sine: Series = [value if first else torch.sin(at)]
        cosine: Series = [torch.cos(at) if first else value]
        for k in range(1, len(u) + 1):
            rise, fall = _integrated(u, cosine.__getitem__, k), _integrated(u, sine.__getitem__, k)
            sine.append(rise)
            cosine.append(scaled(fall, -1))
        return (sine if first else cosine)[1:]

    return run


def _log(at: Tensor, value: Tensor, u: Series) -> Series:
    inverse = torch.reciprocal(at)
    known: Series = [at, *u]
    found: Series = []
    for k in range(1, len(u) + 1):
        rest: Tensor | None = u[k - 1]
        for j in range(1, k):
            rest = _plus(rest, scaled(_times(found[j - 1], known[k - j]), -j / k))
        found.append(_times(rest, inverse))
    return found


def _sqrt(at: Tensor, value: Tensor, u: Series) -> Series:
    half = 0.5 / value
    found: Series = [value]
    for k in range(1, len(u) + 1):
        found.append(_times(_plus(u[k - 1], scaled(_convolved(found, found, 1, k, k), -1)), half))
    return found[1:]


def _reciprocal(at: Tensor, value: Tensor, u: Series) -> Series:
    found: Series = [value]
    for k in range(1, len(u) + 1):
        total: Tensor | None = None
        for j in range(1, k + 1):
            total = _plus(total, _times(u[j - 1], found[k - j]))
        found.append(scaled(_times(total, value), -1))
    return found[1:]


def _square(at: Tensor, value: Tensor, u: Series) -> Series:
    known: Series = [at, *u]
    return [_convolved(known, known, 0, k + 1, k) for k in range(1, len(known))]


_BY_NAME: dict[str, Recurrence] = {
    "exp": _of_own_value(0, 1, 0),
    "tanh": _of_own_value(-1, 0, 1),
    "sigmoid": _of_own_value(-1, 1, 0),
    "sin": _turning(True),
    "cos": _turning(False),
    "log": _log,
    "sqrt": _sqrt,
    "reciprocal": _reciprocal,
    "square": _square,
}
_SPACES: tuple[Any, ...] = (torch, torch.Tensor, F, torch.special, torch.ops.aten)
_RECURRENCES = {
    found: recurrence
    for name, recurrence in _BY_NAME.items()
    for space in _SPACES
    if callable(found := getattr(space, name, None))
}


def recurrence_of(func: Any) -> Recurrence | None:
    """Return the recurrence of an operation, if it has one.

    >>> recurrence_of(torch.exp)(torch.tensor(0.0), torch.tensor(1.0), [torch.tensor(1.0), None])
    [tensor(1.), tensor(0.5000)]
    """
    return _RECURRENCES.get(getattr(func, "overloadpacket", func))


def composed(derivatives: list[Tensor], u: Series) -> Series:
    """Return the series of f(u) from f′, f″ … at u_0: Σ f⁽ᵐ⁾/m! (u - u_0)ᵐ."""
    size = len(u)
    power: Series = [None, *u]
    found: Series = [None] * (size + 1)
    factor = 1.0
    for m, derivative in enumerate(derivatives, 1):
        factor /= m
        found = [_plus(one, scaled(_times(derivative, part), factor)) for one, part in zip(found, power, strict=True)]
        power = [_convolved(power, [None, *u], 0, k + 1, k) for k in range(size + 1)]
    return found[1:]

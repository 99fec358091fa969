"""Bessel functions of every integer order, whose derivatives are Bessel functions (DLMF 10.6, 10.29).

The orders 0 and 1 are torch's. Higher ones follow by the recurrence, which is stable where the argument is larger than
the order, and for Y and K everywhere; elsewhere J and I are series.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from ._elementwise import Elementwise

_special = torch.special
_TORCH = {
    "j": (_special.bessel_j0, _special.bessel_j1),
    "y": (_special.bessel_y0, _special.bessel_y1),
    "i": (_special.i0, _special.i1),
    "modified i": (_special.modified_bessel_i0, _special.modified_bessel_i1),
    "scaled i": (_special.i0e, _special.i1e),
    "k": (_special.modified_bessel_k0, _special.modified_bessel_k1),
    "scaled k": (_special.scaled_modified_bessel_k0, _special.scaled_modified_bessel_k1),
}
# (the sign of the lower order, and of twice the order over the argument) in the recurrence for the next order
_RECURRENCE = {"j": (-1, 1), "y": (-1, 1), "i": (1, -1), "k": (1, 1)}
_HALVES = {
    "j": (0.5, -0.5),
    "y": (0.5, -0.5),
    "i": (0.5, 0.5),
    "k": (-0.5, -0.5),
}  # of both neighbours, in a derivative
_SERIES = {"j": (6.0, 28), "i": (6.0, 28)}  # below which argument there is a series, and of how many terms


@lru_cache(maxsize=128)
def _order(family: str, n: int) -> Elementwise:
    """Return the function of order n."""
    kind = family[-1]
    lower_factor, upper_factor = _HALVES[kind]

    def derivative(x: Tensor) -> Tensor:
        upper = _order(family, n + 1)(x)
        lower = _order(family, n - 1)(x) if n else _order(family, 1)(x) * (1 if kind in "ik" else -1)
        moved = lower_factor * lower + upper_factor * upper
        if family == "scaled i":
            return moved - torch.sgn(x).detach() * _order(family, n)(x)
        return moved + _order(family, n)(x) if family == "scaled k" else moved

    value = _TORCH[family][n] if n < len(_TORCH[family]) else partial(_value, family, n)
    return Elementwise(_TORCH[family][min(n, 1)].__name__.removeprefix("special_"), value, (derivative,))


def _value(family: str, n: int, x: Tensor) -> Tensor:
    kind = family[-1]
    lower_sign, upper_sign = _RECURRENCE[kind]
    limit, terms = _SERIES.get(kind, (0.0, 0))
    near = x.abs() < max(limit, n) if terms else torch.zeros_like(x, dtype=torch.bool)
    away = torch.where(near, 1.0, x)
    lower, upper = (order(away) for order in _TORCH[family])
    for k in range(1, n):
        lower, upper = upper, lower_sign * lower + upper_sign * (2 * k / away) * upper
    if not terms:
        return upper
    series = _series(torch.where(near, x, 0.0), n, -1 if kind == "j" else 1, terms)
    return torch.where(near, series * torch.exp(-x.abs()) if family == "scaled i" else series, upper)


def _series(x: Tensor, n: int, sign: int, terms: int) -> Tensor:
    """Return the sum of (sign · x² / 4)ᵏ / (k! (k+n)!), times (x/2)ⁿ (DLMF 10.2.2, 10.25.2)."""
    total = torch.zeros_like(x)
    for k in reversed(range(terms)):
        total = total * (sign * x * x / 4) + 1 / (math.factorial(k) * math.factorial(k + n))
    return total * (x / 2) ** n


def _function(family: str, n: int) -> Callable[[Tensor], Tensor]:
    def run(input: Tensor) -> Tensor:
        return _order(family, n)(input) if input.is_floating_point() else _TORCH[family][n](input)

    return run


BESSEL = {_TORCH[family][n]: _function(family, n) for family in _TORCH for n in (0, 1)}  # by torch's functions

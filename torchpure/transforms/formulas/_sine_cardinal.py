"""The sine cardinal sin(z) / z and all its derivatives, as `sinc` (z = πx) and `spherical_bessel_j0` (z = x)."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from ._elementwise import Elementwise

_TERMS = 12  # of the series, for |z| ≤ 2: the last one is below 1e-16
_HALF = frozenset({torch.float16, torch.bfloat16})


@lru_cache(maxsize=16)
def _derivative(n: int, factor: float) -> Elementwise:
    """Return the n-th derivative of s(factor · x), with s(z) = sin z / z."""
    return Elementwise("sinc", lambda x: _value(x, n, factor), (lambda x: _derivative(n + 1, factor)(x),))


def _value(x: Tensor, n: int, factor: float) -> Tensor:
    """Return the n-th derivative; z sⁿ(z) = sin(z + nπ/2) − n sⁿ⁻¹(z) follows from z s(z) = sin z."""
    z = factor * (x.float() if x.dtype in _HALF else x)
    near = z.abs() < max(1.0, n / 2)  # where the recurrence would subtract numbers that are almost equal
    away = torch.where(near, 1.0, z)
    far = torch.sin(z) / away
    for k in range(1, n + 1):
        far = (torch.sin(z + k * math.pi / 2) - k * far) / away
    return (factor**n * torch.where(near, _series(torch.where(near, z, 0.0), n), far)).to(x.dtype)


def _series(z: Tensor, n: int) -> Tensor:
    """Return the sum of (−1)ᵏ z^(2k−n) / ((2k−n)! (2k+1)) over 2k ≥ n."""
    first = (n + 1) // 2
    total = torch.zeros_like(z)
    for k in reversed(range(first, first + _TERMS)):
        total = total * z * z + (-1) ** k / (math.factorial(2 * k - n) * (2 * k + 1))
    return total * z ** (2 * first - n)


def sinc(input: Tensor) -> Tensor:
    """Compute `torch.sinc`."""
    return _SINC(input) if input.is_floating_point() else torch.sinc(input)


def spherical_bessel_j0(x: Tensor) -> Tensor:
    """Compute `torch.special.spherical_bessel_j0`."""
    return _SPHERICAL(x) if x.is_floating_point() else torch.special.spherical_bessel_j0(x)


_SINC = Elementwise("sinc", torch.sinc, (lambda x: _derivative(1, math.pi)(x),))
_SPHERICAL = Elementwise("spherical_bessel_j0", torch.special.spherical_bessel_j0, (lambda x: _derivative(1, 1.0)(x),))

"""Powers with a tensor of exponents, at a base of zero too."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ._elementwise import Elementwise
from ._safe_product import safe_product


@lru_cache(maxsize=16)
def _with_logarithms(k: int) -> Elementwise:
    """Return xᵇ logᵏ x: its derivatives are b xᵇ⁻¹ logᵏ x + k xᵇ⁻¹ logᵏ⁻¹ x and xᵇ logᵏ⁺¹ x.

    At x = 0 and k > 0 it is 0 for b ≥ 0: the limit for b > 0, and torch's convention for b = 0.
    """

    def value(x: Tensor, b: Tensor) -> Tensor:
        power = torch.pow(x, b)
        if k == 0:
            return power
        vanishes = (x == 0) & ((b.real if b.is_complex() else b) >= 0)
        return torch.where(vanishes, 0.0, power * torch.log(torch.where(vanishes, 1.0, x)) ** k)

    def in_base(x: Tensor, b: Tensor) -> Tensor:
        lower = safe_product(b, _with_logarithms(k)(x, b - 1))
        return lower if k == 0 else lower + k * _with_logarithms(k - 1)(x, b - 1)

    return Elementwise("pow", value, (in_base, lambda x, b: _with_logarithms(k + 1)(x, b)))


def pow(input: Any, exponent: Any) -> Tensor:
    """Compute `torch.pow`."""
    if not isinstance(exponent, Tensor):
        return torch.pow(input, exponent)
    dtype = torch.result_type(input, exponent)
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.pow(input, exponent)
    base = input.to(dtype) if isinstance(input, Tensor) else torch.full_like(exponent, input, dtype=dtype)
    return _with_logarithms(0)(base, exponent.to(dtype))


def float_power(input: Any, exponent: Any) -> Tensor:
    """Compute `torch.float_power`."""
    if not isinstance(exponent, Tensor):
        return torch.float_power(input, exponent)
    return pow(_double(input), _double(exponent))


def _double(x: Any) -> Any:
    return x if not isinstance(x, Tensor) else x.to(torch.complex128 if x.is_complex() else torch.float64)

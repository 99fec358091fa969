"""Draws: pure functions of a key and a shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchpure._types import Key

from ._keys import bits

Shape = Sequence[int]


def uniform(
    key: Key,
    shape: Shape = (),
    *,
    low: float = 0.0,
    high: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw from the uniform distribution on [low, high); `high` itself never comes, whatever the rounding.

    Law: `vmap(uniform)(keys)[i] == uniform(keys[i])`, bit for bit.

    >>> from torchpure import random
    >>> bool(torch.equal(random.uniform(random.key(0), (3,)), random.uniform(random.key(0), (3,))))
    True
    """
    unit = _unit_interval(key, math.prod(shape), dtype)
    drawn = (low + (high - low) * unit).reshape(tuple(shape)).to(dtype)
    top, bottom = torch.tensor([high, low], dtype=dtype, device=key.device)
    return torch.where(drawn < top, drawn, torch.nextafter(top, bottom)) if low < high else drawn


def normal(
    key: Key,
    shape: Shape = (),
    *,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw from the normal distribution, by inversion of its distribution function."""
    count = math.prod(shape)
    unit = _unit_interval(key, count, dtype)
    step = 2.0**-53 if dtype == torch.float64 else 2.0**-24  # keeps both ends, which are infinite, out
    standard = math.sqrt(2) * torch.erfinv((2 * unit - 1) + step)
    return (mean + std * standard).reshape(tuple(shape)).to(dtype)


def permutation(key: Key, num: int) -> Tensor:
    """Draw an order of 0 … num - 1, int64, shape (num,).

    >>> from torchpure import random
    >>> random.permutation(random.key(0), 5).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    words = bits(key, 2 * num)
    return ((words[:num] << 31) ^ words[num:]).argsort()


def _unit_interval(key: Key, count: int, dtype: torch.dtype) -> Tensor:
    """Draw from [0, 1) in steps of 2**-53 for float64, and in float32 in steps of 2**-24 for all others."""
    if not dtype.is_floating_point:
        raise TypeError(f"random: wanted a floating point dtype, got {dtype}")
    if dtype == torch.float64:
        words = bits(key, 2 * count)
        return ((words[:count] >> 5).to(torch.float64) * 2.0**26 + (words[count:] >> 6)) * 2.0**-53
    return (bits(key, count) >> 8).to(torch.float32) * 2.0**-24

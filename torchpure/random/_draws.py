"""Draws from continuous distributions: pure functions of a key and a shape, by inversion unless it is said otherwise.

What a distribution is scaled and shifted by may be a tensor that broadcasts with the shape: gradients flow to it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchpure._types import Key

from ._keys import check_key
from ._words import unit32, words

Shape = Sequence[int]
Number = float | Tensor


def uniform(
    key: Key, shape: Shape = (), *, low: Number = 0.0, high: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the uniform distribution on [low, high); `high` itself never comes, whatever the rounding.

    Law: `vmap(uniform)(keys)[i] == uniform(keys[i])`, bit for bit.

    Raises:
        TypeError: `key` is not a key, or `dtype` is not a floating point one.
        ValueError: a size is negative.

    >>> from torchpure import random
    >>> bool(torch.equal(random.uniform(random.key(0), (3,)), random.uniform(random.key(0), (3,))))
    True
    """
    unit = unit_interval("uniform", key, shape, dtype)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return (low + (high - low) * unit).to(dtype)
    if low == 0 and high == 1 and dtype in (torch.float32, torch.float64):
        return unit
    top, bottom = torch.tensor([high, low], dtype=dtype, device=key.device)
    drawn = (low + (high - low) * unit).to(dtype)
    return torch.minimum(drawn, torch.nextafter(top, bottom)) if low < high else drawn


def normal(
    key: Key, shape: Shape = (), *, mean: Number = 0.0, std: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the normal distribution.

    Raises:
        TypeError, ValueError: as `uniform`.

    >>> from torchpure import random
    >>> random.normal(random.key(0), (2, 3), mean=5.0).shape
    torch.Size([2, 3])
    """
    unit = unit_interval("normal", key, shape, dtype)
    # between the steps, so that neither end, which is infinite, ever comes
    centred = 2 * unit + ((2.0**-53 if dtype == torch.float64 else 2.0**-24) - 1)
    return _moved(torch.erfinv(centred) * math.sqrt(2), mean, std, dtype)


def truncated_normal(
    key: Key,
    shape: Shape = (),
    *,
    low: float = -2.0,
    high: float = 2.0,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw from the normal distribution cut off outside [low, high], bounds in the units of the result.

    Raises:
        TypeError, ValueError: as `uniform`; or low is not below high, or std is not positive.

    >>> from torchpure import random
    >>> bool(random.truncated_normal(random.key(0), (100,), low=-1.0, high=1.0).abs().max() <= 1)
    True
    """
    if not low < high or not std > 0:
        raise ValueError(f"truncated_normal: wanted low < high and std > 0, got {low}, {high} and {std}")
    unit = _open_interval("truncated_normal", key, shape, dtype)
    ends = [math.erf((end - mean) / (std * math.sqrt(2))) for end in (low, high)]
    standard = math.sqrt(2) * torch.erfinv(ends[0] + (ends[1] - ends[0]) * unit)
    return (mean + std * standard).clamp(low, high).to(dtype)


def exponential(key: Key, shape: Shape = (), *, rate: Number = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from the exponential distribution, of mean 1 / rate: always more than zero.

    Raises:
        TypeError, ValueError: as `uniform`.
    """
    drawn = -torch.log(_open_interval("exponential", key, shape, dtype))
    return (drawn if _is(rate, 1) else drawn / rate).to(dtype)


def gumbel(
    key: Key, shape: Shape = (), *, loc: Number = 0.0, scale: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the Gumbel distribution, whose largest of several decides a categorical draw.

    Raises:
        TypeError, ValueError: as `uniform`.
    """
    unit = _open_interval("gumbel", key, shape, dtype)
    return _moved(-torch.log(-torch.log(unit)), loc, scale, dtype)


def laplace(
    key: Key, shape: Shape = (), *, loc: Number = 0.0, scale: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the Laplace distribution.

    Raises:
        TypeError, ValueError: as `uniform`.
    """
    centred = 2 * _open_interval("laplace", key, shape, dtype) - 1
    return _moved(-centred.sign() * torch.log1p(-centred.abs()), loc, scale, dtype)


def cauchy(
    key: Key, shape: Shape = (), *, loc: Number = 0.0, scale: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the Cauchy distribution.

    Raises:
        TypeError, ValueError: as `uniform`.
    """
    unit = _open_interval("cauchy", key, shape, dtype)
    return _moved(torch.tan(math.pi * (unit - 0.5)), loc, scale, dtype)


def log_normal(
    key: Key, shape: Shape = (), *, mean: Number = 0.0, std: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the distribution whose logarithm is normal with this mean and standard deviation.

    Raises:
        TypeError, ValueError: as `uniform`.
    """
    return normal(key, shape, mean=mean, std=std, dtype=wide(dtype)).exp().to(dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which draws of a dtype are computed: at least float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unit_interval(who: str, key: Key, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Draw from [0, 1), float64 in steps of 2**-53 for that dtype, and float32 in steps of 2**-24 for all others.

    Raises:
        TypeError: `key` is not a key, or `dtype` is not a floating point one.
        ValueError: a size is negative.
    """
    check_key(key, who)
    if not dtype.is_floating_point:
        raise TypeError(f"{who}: wanted a floating point dtype, got {dtype}")
    shape, count = sizes(who, shape)
    if dtype != torch.float64:
        return unit32(key, count).reshape(shape)
    drawn = words(key, 2 * count)
    return (((drawn[:count] >> 5).to(torch.float64) * 2.0**26 + (drawn[count:] >> 6)) * 2.0**-53).reshape(shape)


def sizes(who: str, shape: Shape) -> tuple[tuple[int, ...], int]:
    """Return a shape as a tuple, and how many entries it has.

    Raises:
        TypeError: it is not a sequence of integers.
        ValueError: a size is negative.
    """
    if isinstance(shape, int) or not all(isinstance(size, int) for size in shape):
        raise TypeError(f"{who}: the shape must be a tuple of integers, got {shape!r}")
    if any(size < 0 for size in shape):
        raise ValueError(f"{who}: sizes must be at least 0, got {tuple(shape)}")
    return tuple(shape), math.prod(shape)


def _open_interval(who: str, key: Key, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Draw from (0, 1): the middles of the steps, since the ends are infinite to many an inverse."""
    unit = unit_interval(who, key, shape, dtype)
    # the middle of the last step of float32 would round to 1
    return unit + 2.0**-54 if dtype == torch.float64 else (unit + 2.0**-25).clamp(max=1 - 2.0**-24)


def _moved(standard: Tensor, loc: Number, scale: Number, dtype: torch.dtype) -> Tensor:
    scaled = standard if _is(scale, 1) else standard * scale
    return (scaled if _is(loc, 0) else scaled + loc).to(dtype)


def _is(value: Number, number: int) -> bool:
    return not isinstance(value, Tensor) and value == number

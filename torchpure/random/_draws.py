"""Draws from continuous distributions: pure functions of a key and a shape, by inversion unless stated otherwise.

Location and scale may be tensors that broadcast with the shape; gradients flow to them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchpure._types import Key

from ._keys import check_key
from ._words import unit_float32, words

Shape = Sequence[int]
Number = float | Tensor


def uniform(
    key: Key, shape: Shape = (), *, low: Number = 0.0, high: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the uniform distribution on [low, high); rounding never gives `high` itself.

    Law: `vmap(uniform)(keys)[i] == uniform(keys[i])`, bit for bit.

    Raises:
        TypeError: `key` is not a key, or `dtype` is not a floating point dtype.
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
        TypeError, ValueError: as in `uniform`.

    >>> from torchpure import random
    >>> random.normal(random.key(0), (2, 3), mean=5.0).shape
    torch.Size([2, 3])
    """
    unit = unit_interval("normal", key, shape, dtype)
    # the middle of each step: erfinv is infinite at both ends
    centred = 2 * unit + ((2.0**-53 if dtype == torch.float64 else 2.0**-24) - 1)
    return _scale_and_shift(torch.erfinv(centred) * math.sqrt(2), mean, std, dtype)


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
    """Draw from the normal distribution truncated to [low, high]; the bounds have the unit of the result.

    Raises:
        TypeError, ValueError: as in `uniform`; or low is not below high, or std is not positive.

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
    """Draw from the exponential distribution with mean 1 / rate; never zero.

    Raises:
        TypeError, ValueError: as in `uniform`.

    >>> from torchpure import random
    >>> bool((random.exponential(random.key(0), (100,), rate=2.0) > 0).all())
    True
    """
    drawn = -torch.log(_open_interval("exponential", key, shape, dtype))
    return (drawn if _is_number(rate, 1) else drawn / rate).to(dtype)


def gumbel(
    key: Key, shape: Shape = (), *, loc: Number = 0.0, scale: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the Gumbel distribution; its noise turns argmax into a categorical draw.

    Raises:
        TypeError, ValueError: as in `uniform`.

    >>> from torchpure import random
    >>> random.gumbel(random.key(0), (3,)).shape
    torch.Size([3])
    """
    unit = _open_interval("gumbel", key, shape, dtype)
    return _scale_and_shift(-torch.log(-torch.log(unit)), loc, scale, dtype)


def laplace(
    key: Key, shape: Shape = (), *, loc: Number = 0.0, scale: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the Laplace distribution.

    Raises:
        TypeError, ValueError: as in `uniform`.

    >>> from torchpure import random
    >>> random.laplace(random.key(0), (3,), scale=0.1).shape
    torch.Size([3])
    """
    centred = 2 * _open_interval("laplace", key, shape, dtype) - 1
    return _scale_and_shift(-centred.sign() * torch.log1p(-centred.abs()), loc, scale, dtype)


def cauchy(
    key: Key, shape: Shape = (), *, loc: Number = 0.0, scale: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the Cauchy distribution.

    Raises:
        TypeError, ValueError: as in `uniform`.

    >>> from torchpure import random
    >>> random.cauchy(random.key(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    unit = _open_interval("cauchy", key, shape, dtype)
    return _scale_and_shift(torch.tan(math.pi * (unit - 0.5)), loc, scale, dtype)


def log_normal(
    key: Key, shape: Shape = (), *, mean: Number = 0.0, std: Number = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from the distribution whose logarithm is normal with this mean and standard deviation.

    Raises:
        TypeError, ValueError: as in `uniform`.

    >>> from torchpure import random
    >>> bool((random.log_normal(random.key(0), (100,)) > 0).all())
    True
    """
    return normal(key, shape, mean=mean, std=std, dtype=compute_dtype(dtype)).exp().to(dtype)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute draws of a dtype in: at least float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unit_interval(caller: str, key: Key, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Draw from [0, 1): for float64 in steps of 2**-53, for all other dtypes float32 in steps of 2**-24.

    Raises:
        TypeError: `key` is not a key, or `dtype` is not a floating point dtype.
        ValueError: a size is negative.
    """
    check_key(key, caller)
    if not dtype.is_floating_point:
        raise TypeError(f"{caller}: wanted a floating point dtype, got {dtype}")
    shape, count = check_shape(caller, shape)
    if dtype != torch.float64:
        return unit_float32(key, count).reshape(shape)
    drawn = words(key, 2 * count)
    return (((drawn[:count] >> 5).to(torch.float64) * 2.0**26 + (drawn[count:] >> 6)) * 2.0**-53).reshape(shape)


def check_shape(caller: str, shape: Shape) -> tuple[tuple[int, ...], int]:
    """Check a shape; return it as a tuple, and its number of entries.

    Raises:
        TypeError: it is not a sequence of integers.
        ValueError: a size is negative.
    """
    if isinstance(shape, int) or not all(isinstance(size, int) for size in shape):
        raise TypeError(f"{caller}: the shape must be a tuple of integers, got {shape!r}")
    if any(size < 0 for size in shape):
        raise ValueError(f"{caller}: sizes must be at least 0, got {tuple(shape)}")
    return tuple(shape), math.prod(shape)


def _open_interval(caller: str, key: Key, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Draw from (0, 1), the middles of the steps: many inverse functions are infinite at 0 and 1."""
    unit = unit_interval(caller, key, shape, dtype)
    # the middle of the last step of float32 would round to 1
    return unit + 2.0**-54 if dtype == torch.float64 else (unit + 2.0**-25).clamp(max=1 - 2.0**-24)


def _scale_and_shift(standard: Tensor, loc: Number, scale: Number, dtype: torch.dtype) -> Tensor:
    scaled = standard if _is_number(scale, 1) else standard * scale
    return (scaled if _is_number(loc, 0) else scaled + loc).to(dtype)


def _is_number(value: Number, number: int) -> bool:
    return not isinstance(value, Tensor) and value == number

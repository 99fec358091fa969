"""Draws from discrete distributions: pure functions of a key; no loop depends on drawn values."""

import torch
from torch import Tensor

from torchpure._types import Key

from ._draws import Shape, check_shape, exponential, gumbel, unit_interval
from ._keys import check_key
from ._words import words


def bernoulli(key: Key, p: float | Tensor = 0.5, shape: Shape | None = None) -> Tensor:
    """Draw True with probability p; bool, by default of the shape of p.

    Raises:
        TypeError: `key` is not a key.
        ValueError: p is a number that is not in [0, 1].

    >>> from torchpure import random
    >>> random.bernoulli(random.key(0), 1.0, (3,))
    tensor([True, True, True])
    """
    if not isinstance(p, Tensor) and not 0 <= p <= 1:
        raise ValueError(f"bernoulli: p must be in [0, 1], got {p}")
    p_shape = tuple(p.shape) if isinstance(p, Tensor) else ()
    dtype = torch.float64 if isinstance(p, Tensor) and p.dtype == torch.float64 else torch.float32
    return unit_interval("bernoulli", key, p_shape if shape is None else shape, dtype) < p


def randint(key: Key, shape: Shape, low: int, high: int, *, dtype: torch.dtype = torch.int64) -> Tensor:
    """Draw integers of [low, high), equally likely up to one part in 2**62 / (high - low).

    Raises:
        TypeError: `key` is not a key, or `dtype` is not an integer dtype.
        ValueError: low is not below high, or the range does not fit in the dtype or exceeds 2**62 integers.

    >>> from torchpure import random
    >>> bool((random.randint(random.key(0), (100,), 2, 5) - 3).abs().max() == 1)
    True
    """
    check_key(key, "randint")
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise TypeError(f"randint: wanted an integer dtype, got {dtype}")
    if not low < high:
        raise ValueError(f"randint: wanted low < high, got {low} and {high}")
    if low < torch.iinfo(dtype).min or high - 1 > torch.iinfo(dtype).max or high - low > 1 << 62:
        raise ValueError(f"randint: [{low}, {high}) does not fit in {dtype}, or holds more than 2**62 integers")
    shape, count = check_shape("randint", shape)
    drawn = words(key, 2 * count)
    return (low + _join_words(drawn[:count], drawn[count:]) % (high - low)).reshape(shape).to(dtype)


def permutation(key: Key, values: int | Tensor) -> Tensor:
    """Draw a permutation of 0 … n - 1, int64, shape (n,); for a tensor, permute its rows.

    Random numbers of 62 bits are sorted. The probability that two are equal is below n² / 2**63; the earlier then
    comes first.

    Raises:
        TypeError: `key` is not a key.
        ValueError: the number is negative, or the tensor has shape ().

    >>> from torchpure import random
    >>> random.permutation(random.key(0), 5).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    check_key(key, "permutation")
    if isinstance(values, Tensor):
        if not values.ndim:
            raise ValueError("permutation: wanted a tensor with rows, got one of shape ()")
        return values[permutation(key, len(values))]
    if values < 0:
        raise ValueError(f"permutation: the number of values must be at least 0, got {values}")
    drawn = words(key, 2 * values)
    return _join_words(drawn[:values], drawn[values:]).argsort(stable=True)


def categorical(key: Key, logits: Tensor, shape: Shape | None = None, *, dim: int = -1) -> Tensor:
    """Draw indices with probabilities softmax(logits), int64; a logit of -inf is never drawn.

    The index of the largest of logits + Gumbel noise is drawn (Maddison et al. 2014, arXiv:1411.0030, section 2). The
    shape is by default that of the logits without `dim`; it may have more dimensions in front.

    Raises:
        TypeError: `key` is not a key, or the logits have no floating point dtype.
        ValueError: the shape does not end with that of the logits without `dim`.

    >>> from torchpure import random
    >>> random.categorical(random.key(0), torch.tensor([0.0, -torch.inf, -torch.inf]), (4,))
    tensor([0, 0, 0, 0])
    """
    if not logits.is_floating_point():
        raise TypeError(f"categorical: wanted logits of a floating point dtype, got {logits.dtype}")
    batch = tuple(size for number, size in enumerate(logits.shape) if number != dim % logits.ndim)
    shape = batch if shape is None else tuple(shape)
    if shape[len(shape) - len(batch) :] != batch:
        raise ValueError(f"categorical: the shape must end with {batch}, that of the logits without dim, got {shape}")
    logits_last = logits.movedim(dim, -1)
    noise = gumbel(key, (*shape, logits_last.shape[-1]), dtype=logits.dtype)
    return (logits_last + noise).argmax(-1)


def multinomial(key: Key, weights: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """Draw indices in proportion to weights, shape (…, num_samples), as `torch.multinomial`.

    Without replacement, each index gets an exponential arrival time with its weight as the rate, and the earliest are
    drawn. This is successive sampling (Efraimidis and Spirakis 2006).

    Raises:
        TypeError: `key` is not a key, or the weights have no floating point dtype.
        ValueError: `num_samples` exceeds the number of weights, without replacement.

    >>> from torchpure import random
    >>> random.multinomial(random.key(0), torch.tensor([0.0, 3.0, 1.0]), 2).sort().values
    tensor([1, 2])
    """
    if replacement:
        rows = categorical(key, weights.log(), (num_samples, *weights.shape[:-1]))
        return rows.movedim(0, -1)
    if num_samples > weights.shape[-1]:
        raise ValueError(f"multinomial: cannot draw {num_samples} of {weights.shape[-1]} without replacement")
    arrival_times = exponential(key, tuple(weights.shape), dtype=weights.dtype) / weights
    return arrival_times.topk(num_samples, largest=False).indices


def choice(
    key: Key, values: int | Tensor, shape: Shape = (), *, replace: bool = True, p: Tensor | None = None
) -> Tensor:
    """Draw from 0 … n - 1, or from the rows of a tensor, with probabilities p; by default all are equal.

    Raises:
        TypeError: `key` is not a key.
        ValueError: p does not have one entry for each value, or there are too few values without replacement.

    >>> from torchpure import random
    >>> random.choice(random.key(0), torch.tensor([5, 6, 7]), (3,), replace=False).sort().values
    tensor([5, 6, 7])
    """
    check_key(key, "choice")
    num = len(values) if isinstance(values, Tensor) else values
    shape, count = check_shape("choice", shape)
    if p is not None and p.shape != (num,):
        raise ValueError(f"choice: p must have shape ({num},), one entry for each value, got {tuple(p.shape)}")
    if not replace and count > num:
        raise ValueError(f"choice: cannot draw {count} of {num} without replacement")
    if p is not None:
        index = multinomial(key, p, count, replace)
    else:
        index = randint(key, (count,), 0, num) if replace else permutation(key, num)[:count]
    index = index.reshape(shape)
    return values[index] if isinstance(values, Tensor) else index


def geometric(key: Key, p: float | Tensor, shape: Shape | None = None) -> Tensor:
    """Draw the number of trials until the first success, at least 1; float32, by default of the shape of p.

    Raises:
        TypeError: `key` is not a key.
        ValueError: p is a number that is not in (0, 1].

    >>> from torchpure import random
    >>> bool((random.geometric(random.key(0), 0.5, (100,)) >= 1).all())
    True
    """
    if not isinstance(p, Tensor) and not 0 < p <= 1:
        raise ValueError(f"geometric: p must be in (0, 1], got {p}")
    check_key(key, "geometric")
    probability = torch.as_tensor(p, device=key.device)
    drawn = exponential(key, tuple(probability.shape) if shape is None else shape)
    return torch.ceil(drawn / -torch.log1p(-probability)).clamp(min=1)


def poisson(key: Key, rate: float | Tensor, shape: Shape | None = None) -> Tensor:
    """Draw counts of events as floats; the shape is by default that of the rate.

    The distribution function is an incomplete gamma function; bisection over the integers inverts it.

    Raises:
        TypeError: `key` is not a key.
        ValueError: the rate is a negative number.

    >>> from torchpure import random
    >>> random.poisson(random.key(0), torch.zeros(3))
    tensor([0., 0., 0.])
    """
    if not isinstance(rate, Tensor) and not rate >= 0:
        raise ValueError(f"poisson: the rate must be at least 0, got {rate}")
    check_key(key, "poisson")
    rates = torch.as_tensor(rate, device=key.device)
    quantile = unit_interval("poisson", key, tuple(rates.shape) if shape is None else shape, torch.float64)
    mean = rates.detach().to(torch.float64).expand_as(quantile)
    below = torch.full_like(quantile, -1.0)
    above = torch.ceil(mean + 12 * torch.sqrt(mean) + 40)  # less than 2**-53 of the probability lies above
    for _ in range(_BISECTIONS):
        middle = torch.floor((below + above) / 2)
        reached = torch.special.gammaincc(middle.clamp(min=0) + 1, mean) >= quantile
        above, below = torch.where(reached & (middle >= 0), middle, above), torch.where(reached, below, middle)
    return above.to(rates.dtype if rates.dtype.is_floating_point else torch.float32)


_BISECTIONS = 40  # enough for every range of counts below 2**39


def _join_words(first: Tensor, second: Tensor) -> Tensor:
    """Join 31 bits each of two words to a number of 62 bits."""
    return ((first & 0x7FFFFFFF) << 31) | (second & 0x7FFFFFFF)

"""Keys: explicit values from which all random numbers are computed.

A key is an int64 tensor of shape (2,): two words of 32 bits. Draws, splits and folds use disjoint ranges of the
counter, so under one key they never use the same block.
"""

import operator

import torch
from torch import Tensor

from torchpure._types import Key

from ._philox import WORD
from ._words import FOLD, SPLIT, derive_keys, words


def key(seed: int) -> Key:
    """Make a key from an integer of up to 64 bits.

    Raises:
        TypeError: the seed is not an integer.
        ValueError: the seed is negative or has more than 64 bits.

    >>> key(0)
    tensor([0, 0])
    """
    try:
        seed = operator.index(seed)
    except TypeError:
        raise TypeError(f"key: the seed must be an integer, got {seed!r}") from None
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"key: the seed must be in [0, 2**64), got {seed}")
    return torch.tensor([seed & WORD, seed >> 32], dtype=torch.int64)


def split(key: Key, num: int = 2) -> Tensor:
    """Derive `num` independent keys, shape (num, 2): `first, second = split(key)`.

    Law: `split(key, n)[i] == split(key, m)[i]`.

    Raises:
        TypeError: `key` is not a key.
        ValueError: `num` is negative.

    >>> first, second = split(key(0))
    >>> torch.equal(first, second)
    False
    """
    check_key(key, "split")
    if num < 0:
        raise ValueError(f"split: the number of keys must be at least 0, got {num}")
    return derive_keys(key, torch.arange(num, device=key.device), SPLIT)


def fold_in(key: Key, data: int | Tensor) -> Key:
    """Derive a key from a key and an integer of 64 bits, such as a step or a position.

    Raises:
        TypeError: `key` is not a key, or `data` is not an integer.
        ValueError: `data` has more than 64 bits.

    >>> bool((fold_in(key(0), 1) != fold_in(key(0), 2)).any())
    True
    """
    check_key(key, "fold_in")
    if not isinstance(data, Tensor):
        return derive_keys(key, _as_int64(data), FOLD)
    if data.is_floating_point() or data.is_complex():
        raise TypeError(f"fold_in: wanted an integer, got a tensor of {data.dtype}")
    return derive_keys(key, data.to(key.device, torch.int64), FOLD)


def bits(key: Key, num: int) -> Tensor:
    """Draw `num` words of 32 random bits, int64, shape (num,).

    Raises:
        TypeError: `key` is not a key.
        ValueError: `num` is negative.

    >>> bits(key(0), 2).shape
    torch.Size([2])
    """
    check_key(key, "bits")
    if num < 0:
        raise ValueError(f"random: the number of values must be at least 0, got {num}")
    return words(key, num)


def _as_int64(data: int) -> int:
    try:
        number = operator.index(data)
    except TypeError:
        raise TypeError(f"fold_in: wanted an integer, got {data!r}") from None
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"fold_in: the integer must be in [-2**63, 2**63), got {number}")
    return number


def check_key(key: Key, caller: str) -> None:
    """Check that a value has the dtype and shape of a key.

    Raises:
        TypeError: it is not an int64 tensor of shape (2,).
    """
    if not isinstance(key, Tensor) or key.dtype != torch.int64 or key.shape != (2,):
        got = f"{key.dtype} of shape {tuple(key.shape)}" if isinstance(key, Tensor) else repr(key)
        is_batch = isinstance(key, Tensor) and key.ndim > 1 and key.shape[-1] == 2
        advice = ": map over several keys with vmap" if is_batch else ""
        raise TypeError(f"{caller}: wanted a key, as random.key(seed) gives (int64, shape (2,)), got {got}{advice}")

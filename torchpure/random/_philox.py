"""Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3).

Words have 32 bits and are stored in int64, because torch has few operations on unsigned integers. The same function is
written three times. `philox` uses torch operations, which transforms, tracers and devices support. `philox_block` uses
Python integers for a single block, where calls of torch would cost a hundred times the arithmetic. `philox_array` uses
numpy's unsigned words, which need a third of the passes over memory.
"""

import numpy as np
from torch import Tensor

WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]
Array = np.ndarray


def philox(counter: Words, key: Tensor) -> Words:
    """Encrypt counters of four words with keys of shape (…, 2); counters broadcast with the keys' leading dimensions.

    >>> import torch
    >>> zero = torch.zeros((), dtype=torch.int64)
    >>> [hex(int(word)) for word in philox((zero,) * 4, torch.zeros(2, dtype=torch.int64))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = counter
    low, high = key[..., 0] & WORD, key[..., 1] & WORD
    for _ in range(_ROUNDS):
        (upper_a, lower_a), (upper_c, lower_c) = _product_words(a, _MULTIPLIERS[0]), _product_words(c, _MULTIPLIERS[1])
        a, b, c, d = upper_c ^ b ^ low, lower_c, upper_a ^ d ^ high, lower_a
        low, high = (low + _WEYL[0]) & WORD, (high + _WEYL[1]) & WORD
    return a, b, c, d


def _product_words(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Return the upper and the lower word of a product of two words, without overflow.

    The product does not fit in int64, and signed overflow is undefined behaviour in compiled code.
    """
    reduced = word * (multiplier - (1 << 32))  # fits, because both multipliers are above 2**31
    return (reduced >> 32) + word, reduced & WORD


def philox_block(counter: tuple[int, int, int, int], low: int, high: int) -> tuple[int, int, int, int]:
    """Encrypt one counter with the key (low, high)."""
    a, b, c, d = counter
    for _ in range(_ROUNDS):
        product_a, product_c = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (product_c >> 32) ^ b ^ low, product_c & WORD, (product_a >> 32) ^ d ^ high, product_a & WORD
        low, high = (low + _WEYL[0]) & WORD, (high + _WEYL[1]) & WORD
    return a, b, c, d


def philox_array(low: Array, high: Array | int, purpose: int, keys: Array) -> tuple[Array, Array, Array, Array]:
    """Encrypt the counters (low, high, 0, purpose) with keys of shape (…, 2) to uint32; little-endian machines only."""
    shape = np.broadcast_shapes(low.shape, keys.shape[:-1])
    ac, bd = np.zeros((2, 2, *shape), np.uint32)
    ac[0], bd[0], bd[1] = low, high, purpose
    # two buffers for products: a round still reads words of the previous round's products
    products = np.empty((2, 2, *shape), np.uint64)
    product_words = products.view(np.uint32).reshape(2, 2, *shape, 2)[:, ::-1]
    uppers, lowers = (
        (product_words[0, ..., 1], product_words[1, ..., 1]),
        (product_words[0, ..., 0], product_words[1, ..., 0]),
    )
    multipliers, keys = (
        _MULTIPLIER_ARRAY.reshape(2, *[1] * len(shape)),
        keys.reshape(*[1] * (len(shape) + 1 - keys.ndim), *keys.shape),
    )
    for number, key in enumerate(_round_keys(keys)):
        slot = number % 2
        np.multiply(ac, multipliers, products[slot])
        np.bitwise_xor(uppers[slot], bd, ac)
        np.bitwise_xor(ac, key, ac)
        bd = lowers[slot]
    return ac[0], bd[0], ac[1], bd[1]


_MULTIPLIER_ARRAY = np.array(_MULTIPLIERS, np.uint64)


_KEY_INCREMENTS = (np.arange(_ROUNDS, dtype=np.uint64).reshape(-1, 1) * np.array(_WEYL, np.uint64)) & np.uint64(WORD)


def _round_keys(keys: Array) -> Array:
    """Return the keys of all rounds, shape (rounds, 2, …)."""
    start = np.moveaxis(keys, -1, 0).astype(np.uint64)
    return (start + _KEY_INCREMENTS.reshape(_ROUNDS, 2, *[1] * (start.ndim - 1))).astype(np.uint32)

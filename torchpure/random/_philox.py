"""Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3).

Words are 32 bits wide and held in int64, because torch has few operations on unsigned integers. A product of two
words wraps around modulo 2**64, of which both halves are right.
"""

from torch import Tensor

WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: Tensor) -> Words:
    """Encrypt counters of four words with a key of shape (2,); shapes broadcast.

    >>> import torch
    >>> zero = torch.zeros((), dtype=torch.int64)
    >>> [hex(int(word)) for word in philox((zero,) * 4, torch.zeros(2, dtype=torch.int64))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = counter
    low, high = key[0] & WORD, key[1] & WORD
    for _ in range(_ROUNDS):
        product_a, product_c = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            ((product_c >> 32) & WORD) ^ b ^ low,
            product_c & WORD,
            ((product_a >> 32) & WORD) ^ d ^ high,
            product_a & WORD,
        )
        low, high = (low + _WEYL[0]) & WORD, (high + _WEYL[1]) & WORD
    return a, b, c, d

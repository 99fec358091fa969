"""A compiled sampler for large draws: one pass over memory, where numpy needs one for each round of the cipher.

Compiling takes seconds, so the first large draw of a process runs uncompiled. Without a C++ compiler all draws do.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import len_torch_function_stack

from ._philox import WORD, philox

BLOCKS = 1 << 16  # blocks of one call: a single shape, so it is compiled once


class CompiledSampler:
    """Draw float32 numbers of [0, 1), a fixed number of blocks at a time; compiled at the second large draw."""

    def __init__(self) -> None:
        self._large_draws = 0
        self._compiled: Any = None
        self._can_compile = True

    def ready(self) -> bool:
        """Count a large draw; return whether it can run compiled."""
        self._large_draws += 1
        return self._large_draws > 1 and self._can_compile and not len_torch_function_stack()

    def __call__(self, key: Tensor, blocks: int) -> Tensor | None:
        """Draw float32 numbers of shape (4, blocks); return None if nothing can be compiled here."""
        drawn = torch.empty(4, blocks)
        try:
            self._compiled = self._compiled or torch.compile(_uniform_blocks, dynamic=False, fullgraph=True)
            for first in range(0, blocks, BLOCKS):
                with torch.no_grad():
                    numbers = self._compiled(key, torch.tensor(first))
                drawn[:, first : first + BLOCKS] = numbers[:, : blocks - first]
        except Exception as error:
            self._can_compile = False
            warnings.warn(
                f"random: large draws run uncompiled, several times slower: {type(error).__name__}: {error!s:.200}. "
                "Install a C++ compiler that torch.compile can use",
                stacklevel=2,
            )
            return None
        return drawn


def _uniform_blocks(key: Tensor, first: Tensor) -> Tensor:
    block = first + torch.arange(BLOCKS)
    zero = torch.zeros_like(block)
    drawn = philox((block & WORD, block >> 32, zero, zero), key)
    return torch.stack([(word >> 8).to(torch.float32) * 2.0**-24 for word in drawn])


compiled_sampler = CompiledSampler()

"""A compiled sampler for large draws: in numpy each round of the cipher is a pass over memory, here all are one.

It compiles in seconds, so the first large draw of a process does without it. Without a C++ compiler all of them do.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import len_torch_function_stack

from ._philox import WORD, philox

BLOCKS = 1 << 16  # of one call: one shape, so that it is compiled once


class Sampler:
    """Draws float32 numbers of [0, 1), a fixed number of blocks at a time; not there before it is worth it."""

    def __init__(self) -> None:
        self._asked = 0
        self._run: Any = None
        self._works = True

    def ready(self) -> bool:
        """Count a large draw, and tell whether it may be compiled."""
        self._asked += 1
        return self._asked > 1 and self._works and not len_torch_function_stack()

    def __call__(self, key: Tensor, blocks: int) -> Tensor | None:
        """Draw from all these blocks, float32, shape (4, blocks); None when nothing can be compiled here."""
        drawn = torch.empty(4, blocks)
        try:
            self._run = self._run or torch.compile(_units, dynamic=False, fullgraph=True)
            for first in range(0, blocks, BLOCKS):
                with torch.no_grad():
                    part = self._run(key, torch.tensor(first))
                drawn[:, first : first + BLOCKS] = part[:, : blocks - first]
        except Exception as error:
            self._works = False
            warnings.warn(
                f"random: large draws run uncompiled, several times slower: {type(error).__name__}: {error!s:.200}. "
                "Install a C++ compiler that torch.compile can use",
                stacklevel=2,
            )
            return None
        return drawn


def _units(key: Tensor, first: Tensor) -> Tensor:
    block = first + torch.arange(BLOCKS)
    zero = torch.zeros_like(block)
    drawn = philox((block & WORD, block >> 32, zero, zero), key)
    return torch.stack([(word >> 8).to(torch.float32) * 2.0**-24 for word in drawn])


sample = Sampler()

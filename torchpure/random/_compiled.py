"""A compiled sampler for large draws: one pass over memory, where numpy needs several for each round of the cipher.

Compiling takes half a second, and the library stays on disk. So numpy draws until a process has drawn millions of
numbers, and for good where there is no C++ compiler. The bits are the same.
"""

import ctypes
import threading
from typing import Any

import torch
from torch import Tensor

from torchpure._cpp import CompilerError, compiler_command, load_library

MIN_WORDS = 1 << 22  # words that numpy has drawn before the compiler starts: a twentieth of a second
_SOURCE = """
#include <stdint.h>
extern "C" void uniform(float *to, int64_t count, uint32_t low, uint32_t high) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t a = (uint32_t)i, b = (uint32_t)((uint64_t)i >> 32), c = 0, d = 0, k = low, l = high;
    for (int round = 0; round < 10; round++) {
      const uint64_t p = (uint64_t)a * 0xD2511F53u, q = (uint64_t)c * 0xCD9E8D57u;
      a = (uint32_t)(q >> 32) ^ b ^ k, b = (uint32_t)q, c = (uint32_t)(p >> 32) ^ d ^ l, d = (uint32_t)p;
      k += 0x9E3779B9u, l += 0xBB67AE85u;
    }
    to[i] = (int32_t)(a >> 8) * 0x1p-24f, to[count + i] = (int32_t)(b >> 8) * 0x1p-24f;
    to[2 * count + i] = (int32_t)(c >> 8) * 0x1p-24f, to[3 * count + i] = (int32_t)(d >> 8) * 0x1p-24f;
  }
}
"""


class CompiledSampler:
    """Draw float32 numbers of [0, 1) with compiled code, once many numbers have been drawn."""

    def __init__(self) -> None:
        self._words, self._uniform, self._failed = 0, None, False
        self._lock = threading.Lock()

    def __call__(self, key: Tensor, blocks: int) -> Tensor | None:
        """Draw float32 numbers of shape (4, blocks); return None where numpy is to draw them."""
        self._words += 4 * blocks
        if self._words < MIN_WORDS or self._failed:
            return None
        with self._lock:
            if self._uniform is None and not self._failed:
                self._load()
        if self._uniform is None:
            return None
        low, high = (word & 0xFFFFFFFF for word in key.tolist())
        drawn = torch.empty(4, blocks)
        self._uniform(drawn.data_ptr(), blocks, low, high)
        return drawn

    def _load(self) -> None:
        try:
            run: Any = load_library(_SOURCE, compiler_command(), "uniform").uniform
        except (CompilerError, FileNotFoundError, OSError):
            self._failed = True
            return
        run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint32]
        run.restype = None
        self._uniform = run


compiled_sampler = CompiledSampler()

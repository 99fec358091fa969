"""Random words, by whichever way is quick where they are wanted; every way gives the same bits.

The n-th block of four words under a key is the encrypted counter (n, purpose). Of num words the first quarter are the
blocks' first words, and so on: no word has to be moved to its place.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure._torch import forward_ad, functorch, len_torch_dispatch_stack

from ._compiled import sample
from ._philox import WORD, philox, philox_array, philox_block

DRAW, SPLIT, FOLD = 0, 1, 2  # the purpose, the counter's last word

_FEW = 32  # so many blocks are quicker in Python
_CHUNK = 1 << 15  # so many blocks stay in cache
_LARGE = 1 << 18  # so many are worth compiling for

_functorch: Any = functorch


def words(key: Tensor, num: int) -> Tensor:
    """Draw `num` words of 32 bits, int64, shape (…, num) for keys of shape (…, 2)."""
    if _is_few(key, num):
        return torch.tensor(_few(key, num), dtype=torch.int64)
    number = torch.arange((num + 3) // 4, device=key.device)
    found = encrypted(key, number & WORD, number >> 32, DRAW)  # (…, 4, blocks)
    return found.flatten(-2)[..., :num]


def _is_few(key: Tensor, num: int) -> bool:
    return num <= 4 * _FEW and key.ndim == 1 and _plain(key)


def _few(key: Tensor, num: int) -> list[int]:
    low, high = key.tolist()
    drawn = [philox_block((block, 0, 0, DRAW), low & WORD, high & WORD) for block in range((num + 3) // 4)]
    return [block[word] for word in range(4) for block in drawn][:num]


def unit32(key: Tensor, num: int) -> Tensor:
    """Draw `num` numbers of [0, 1) in steps of 2**-24, float32: for many under one plain key."""
    if _is_few(key, num):
        return torch.tensor([(word >> 8) * 2.0**-24 for word in _few(key, num)], dtype=torch.float32)
    if key.ndim > 1 or not _plain(key):
        return (words(key, num) >> 8).to(torch.float32) * 2.0**-24
    blocks, numbers = (num + 3) // 4, key.numpy()
    compiled = sample(key, blocks) if num >= _LARGE and sample.ready() else None
    if compiled is not None:
        return compiled.reshape(-1)[:num]
    drawn = np.empty((4, blocks), np.float32)
    for first in range(0, blocks, _CHUNK):
        counter = np.arange(first, min(first + _CHUNK, blocks), dtype=np.int64)
        for row, part in enumerate(philox_array(counter & WORD, counter >> 32, DRAW, numbers)):
            into = drawn[row, first : first + len(part)]
            np.multiply(part >> np.uint32(8), np.float32(2.0**-24), out=into, dtype=np.float32, casting="unsafe")
    return torch.from_numpy(drawn.reshape(-1)[:num])


def derived(key: Tensor, data: Tensor | int, purpose: int) -> Tensor:
    """Derive a key for each number of 64 bits: shape (…, 2) for numbers of shape (…,)."""
    if isinstance(data, int):
        if _plain(key):
            return torch.tensor(_pair(data, key.tolist(), purpose), dtype=torch.int64)
        data = torch.tensor(data, device=key.device)
    elif key.ndim == 1 and data.numel() <= _FEW and _plain(key) and _plain(data):
        pairs = [_pair(number, key.tolist(), purpose) for number in data.reshape(-1).tolist()]
        return torch.tensor(pairs, dtype=torch.int64).reshape(*data.shape, 2)
    flat = data.reshape(-1)
    found = encrypted(key, flat & WORD, (flat >> 32) & WORD, purpose)
    return torch.stack([found[..., 0, :], found[..., 1, :]], -1).reshape(*data.shape, 2)


def _pair(number: int, key: list[int], purpose: int) -> tuple[int, int]:
    low, high = key
    return philox_block((number & WORD, (number >> 32) & WORD, 0, purpose), low & WORD, high & WORD)[:2]


def encrypted(key: Tensor, low: Tensor, high: Tensor, purpose: int) -> Tensor:
    """Encrypt counters of shape (…, n) with keys of shape (…, 2): (…, 4, n)."""
    if not is_dynamo_compiling() and any(map(_functorch.is_functorch_wrapped_tensor, (key, low))):
        return _Encrypted.apply(key, low, high, purpose)
    if sys.byteorder == "little" and _plain(key) and _plain(low):
        found = philox_array(low.numpy(), high.numpy(), purpose, key.numpy()[..., None, :])
        return torch.from_numpy(np.stack(found, -2).astype(np.int64))
    zero = torch.zeros_like(low)
    return torch.stack(torch.broadcast_tensors(*philox((low, high, zero, zero + purpose), key.unsqueeze(-2))), dim=-2)


def _plain(tensor: Tensor) -> bool:
    """Tell whether numpy may read a tensor: one on the CPU that nothing watches."""
    return (
        not is_dynamo_compiling()
        and type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and not len_torch_dispatch_stack()
        and not _functorch.is_functorch_wrapped_tensor(tensor)
        and forward_ad._current_level < 0
    )


class _Encrypted(torch.autograd.Function):
    """`encrypted` under transforms: a batch of keys is one call on more keys, not a batched call of each operation."""

    @staticmethod
    def forward(key: Tensor, low: Tensor, high: Tensor, purpose: int) -> Tensor:
        return encrypted(key, low, high, purpose)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        key, low, high, purpose = args
        rank = max(part.ndim - (dim is not None) for part, dim in zip((key, low, high), in_dims[:3], strict=True))
        parts = [_front(part, dim, rank) for part, dim in zip((key, low, high), in_dims[:3], strict=True)]
        return _Encrypted.apply(*parts, purpose), 0


def _front(part: Tensor, dim: int | None, rank: int) -> Tensor:
    """Put the batch first, and ones after it until the members have the rank that all share."""
    if dim is None:
        return part
    part = part.movedim(dim, 0)
    return part.reshape(part.shape[0], *[1] * (rank + 1 - part.ndim), *part.shape[1:])

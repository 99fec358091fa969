"""Random words, computed by the fastest method for the case; every method gives the same bits.

The n-th block of four words under a key is the encrypted counter (n, purpose). The first quarter of `num` words are
the first words of all blocks, the second quarter the second words, and so on: so no word has to be moved.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure._torch import forward_ad, functorch, len_torch_dispatch_stack

from ._compiled import compiled_sampler
from ._philox import WORD, philox, philox_array, philox_block

DRAW, SPLIT, FOLD = 0, 1, 2  # the purpose: the last word of the counter

_PYTHON_BLOCKS = 32  # up to this many blocks Python is faster
_CACHE_BLOCKS = 1 << 15  # this many blocks fit in the cache
_LARGE = 1 << 12  # from this many words on, a call of compiled code is faster

_functorch: Any = functorch


def words(key: Tensor, num: int) -> Tensor:
    """Draw `num` words of 32 bits, int64, shape (…, num) for keys of shape (…, 2)."""
    if _fits_python(key, num):
        return torch.tensor(_words_in_python(key, num), dtype=torch.int64)
    number = torch.arange((num + 3) // 4, device=key.device)
    encrypted = encrypt(key, number & WORD, number >> 32, DRAW)  # (…, 4, blocks)
    return encrypted.flatten(-2)[..., :num]


def _fits_python(key: Tensor, num: int) -> bool:
    return num <= 4 * _PYTHON_BLOCKS and key.ndim == 1 and _is_plain(key)


def _words_in_python(key: Tensor, num: int) -> list[int]:
    low, high = key.tolist()
    drawn = [philox_block((block, 0, 0, DRAW), low & WORD, high & WORD) for block in range((num + 3) // 4)]
    return [block[word] for word in range(4) for block in drawn][:num]


def unit_float32(key: Tensor, num: int) -> Tensor:
    """Draw `num` float32 numbers of [0, 1) in steps of 2**-24; fast for many numbers under one plain key."""
    if _fits_python(key, num):
        return torch.tensor([(word >> 8) * 2.0**-24 for word in _words_in_python(key, num)], dtype=torch.float32)
    if key.ndim > 1 or not _is_plain(key):
        return (words(key, num) >> 8).to(torch.float32) * 2.0**-24
    blocks, numbers = (num + 3) // 4, key.numpy()
    compiled = compiled_sampler(key, blocks) if num >= _LARGE else None
    if compiled is not None:
        return compiled.reshape(-1)[:num]
    drawn = np.empty((4, blocks), np.float32)
    for first in range(0, blocks, _CACHE_BLOCKS):
        counter = np.arange(first, min(first + _CACHE_BLOCKS, blocks), dtype=np.int64)
        for row, part in enumerate(philox_array(counter & WORD, counter >> 32, DRAW, numbers)):
            target = drawn[row, first : first + len(part)]
            np.multiply(part >> np.uint32(8), np.float32(2.0**-24), out=target, dtype=np.float32, casting="unsafe")
    return torch.from_numpy(drawn.reshape(-1)[:num])


def derive_keys(key: Tensor, data: Tensor | int, purpose: int) -> Tensor:
    """Derive a key for each number of 64 bits; numbers of shape (…,) give keys of shape (…, 2)."""
    if isinstance(data, int):
        if _is_plain(key):
            return torch.tensor(_derive_pair(data, key.tolist(), purpose), dtype=torch.int64)
        data = torch.tensor(data, device=key.device)
    elif key.ndim == 1 and data.numel() <= _PYTHON_BLOCKS and _is_plain(key) and _is_plain(data):
        pairs = [_derive_pair(number, key.tolist(), purpose) for number in data.reshape(-1).tolist()]
        return torch.tensor(pairs, dtype=torch.int64).reshape(*data.shape, 2)
    flat = data.reshape(-1)
    encrypted = encrypt(key, flat & WORD, (flat >> 32) & WORD, purpose)
    return torch.stack([encrypted[..., 0, :], encrypted[..., 1, :]], -1).reshape(*data.shape, 2)


def _derive_pair(number: int, key: list[int], purpose: int) -> tuple[int, int]:
    low, high = key
    return philox_block((number & WORD, (number >> 32) & WORD, 0, purpose), low & WORD, high & WORD)[:2]


def encrypt(key: Tensor, low: Tensor, high: Tensor, purpose: int) -> Tensor:
    """Encrypt counters of shape (…, n) with keys of shape (…, 2); the result has shape (…, 4, n)."""
    if not is_dynamo_compiling() and any(map(_functorch.is_functorch_wrapped_tensor, (key, low))):
        key, low, high = map(_without_closed_levels, (key, low, high))
        if any(map(_functorch.is_functorch_wrapped_tensor, (key, low))):
            return _Encrypt.apply(key, low, high, purpose)
    if sys.byteorder == "little" and _is_plain(key) and _is_plain(low):
        encrypted = philox_array(low.numpy(), high.numpy(), purpose, key.numpy()[..., None, :])
        return torch.from_numpy(np.stack(encrypted, -2).astype(np.int64))
    zero = torch.zeros_like(low)
    return torch.stack(torch.broadcast_tensors(*philox((low, high, zero, zero + purpose), key.unsqueeze(-2))), dim=-2)


def _without_closed_levels(tensor: Tensor) -> Tensor:
    """Remove wrappers of levels that are not open: a tracer runs bodies of loops below them, with keys from outside.

    An operation removes them, and function modes see it: one may have another tensor in place of this one.
    """
    is_closed = not 0 <= _functorch.maybe_get_level(tensor) <= (_functorch.maybe_current_level() or 0)
    return tensor.view_as(tensor) if _functorch.is_gradtrackingtensor(tensor) and is_closed else tensor


def _is_plain(tensor: Tensor) -> bool:
    """Return whether numpy can read a tensor: on the CPU, outside every transform, trace and mode."""
    return (
        not is_dynamo_compiling()
        and type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and not len_torch_dispatch_stack()
        and not _functorch.is_functorch_wrapped_tensor(tensor)
        and forward_ad._current_level < 0
    )


class _Encrypt(torch.autograd.Function):
    """`encrypt` under transforms; vmap makes one call with all keys, instead of batching each operation."""

    @staticmethod
    def forward(key: Tensor, low: Tensor, high: Tensor, purpose: int) -> Tensor:
        return encrypt(key, low, high, purpose)

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
        parts = [_batch_first(part, dim, rank) for part, dim in zip((key, low, high), in_dims[:3], strict=True)]
        return _Encrypt.apply(*parts, purpose), 0


def _batch_first(tensor: Tensor, dim: int | None, rank: int) -> Tensor:
    """Move the batch dimension to the front, and insert dimensions of size 1 after it up to the common rank."""
    if dim is None:
        return tensor
    tensor = tensor.movedim(dim, 0)
    return tensor.reshape(tensor.shape[0], *[1] * (rank + 1 - tensor.ndim), *tensor.shape[1:])

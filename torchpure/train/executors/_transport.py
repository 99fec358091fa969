"""Trees of tensors as trees of bytes, so that an executor can send them.

torch itself sends tensors through files of shared memory: these end with the process that made them, each takes a file
descriptor, and the memory of the tensor that was sent moves there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.checkpoints import data_of


@dataclass(frozen=True, slots=True)
class _Packed:
    data: bytes
    dtype: torch.dtype
    shape: tuple[int, ...]
    device: str


def pack(value: Tree) -> Tree:
    """Return a tree with the bytes of its tensors in their places.

    Law: `unpack(pack(tree)) == tree`, bit for bit.
    """
    return tree.map(_pack, value)


def unpack(value: Tree, device: str | None = None) -> Tree:
    """Return a tree with tensors again: on their devices, or all on one."""

    def restore(leaf: object) -> object:
        return _unpack(leaf, device or leaf.device) if isinstance(leaf, _Packed) else leaf

    return tree.map(restore, value)


def _pack(leaf: object) -> object:
    if not isinstance(leaf, Tensor):
        return leaf
    return _Packed(bytes(data_of(leaf)), leaf.dtype, tuple(leaf.shape), str(leaf.device))


def _unpack(packed: _Packed, device: str) -> Tensor:
    if not packed.data:
        return torch.empty(packed.shape, dtype=packed.dtype, device=device)
    flat = torch.frombuffer(bytearray(packed.data), dtype=packed.dtype)  # a copy: bytes cannot be written to
    return flat.reshape(packed.shape).to(device)

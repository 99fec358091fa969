"""Convert a tree to one vector and back."""

from collections.abc import Callable

import torch
from torch import Tensor

from torchpure._types import Tree
from torchpure.errors import StructureError

from ._backend import flatten, unflatten
from ._core import describe, paths


def ravel(tree: Tree) -> tuple[Tensor, Callable[[Tensor], Tree]]:
    """Join all leaves into one vector of shape (n,); also return the inverse function, `unravel`.

    Leaves of different dtypes are promoted to one dtype; `unravel` restores the dtype of each leaf.
    Law: `unravel(vector) == tree`, also under grad, vmap and jvp.

    Raises:
        StructureError: a leaf is not a tensor, or `unravel` gets a vector of another length.

    >>> vector, unravel = ravel({"w": torch.ones(2, 2), "b": torch.zeros(2)})
    >>> vector.shape, unravel(vector)["w"].shape
    (torch.Size([6]), torch.Size([2, 2]))
    """
    leaves, structure = flatten(tree)
    for leaf, path in zip(leaves, paths(tree) if not _all_tensors(leaves) else leaves, strict=True):
        if not isinstance(leaf, Tensor):
            raise StructureError(f"tree.ravel: wanted tensors only, got {describe(leaf)} at `{path}`")
    shapes = [leaf.shape for leaf in leaves]
    dtypes = [leaf.dtype for leaf in leaves]
    sizes = [leaf.numel() for leaf in leaves]

    def unravel(vector: Tensor) -> Tree:
        if not isinstance(vector, Tensor) or vector.shape != (sum(sizes),):
            raise StructureError(f"unravel: wanted a vector of shape ({sum(sizes)},), got {describe(vector)}")
        parts = zip(vector.split(sizes), shapes, dtypes, strict=True) if sizes else ()
        return unflatten(structure, [_cast(part.reshape(shape), dtype) for part, shape, dtype in parts])

    return _concatenate(leaves), unravel


def _cast(part: Tensor, dtype: torch.dtype) -> Tensor:
    return (part.real if part.is_complex() and not dtype.is_complex else part).to(dtype)


def _all_tensors(leaves: list) -> bool:
    return all(isinstance(leaf, Tensor) for leaf in leaves)


def _concatenate(leaves: list[Tensor]) -> Tensor:
    if not leaves:
        return torch.zeros(0, dtype=torch.float32)
    dtype = leaves[0].dtype
    for leaf in leaves:
        dtype = torch.promote_types(dtype, leaf.dtype)
    return torch.cat([leaf.reshape(-1).to(dtype) for leaf in leaves])

"""Specs that split a tree of tensors over an axis of a mesh."""

from typing import Any

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._mesh import names_of
from ._partition_spec import PartitionSpec


def partition_specs(values: Tree, mesh: DeviceMesh, axis: str) -> Tree:
    """Return a spec for each leaf: `axis` splits the first of its longest dimensions that it divides.

    A leaf without such a dimension is not split. With `device_put`, the specs of the state of an optimizer make ZeRO-1
    (Rajbhandari, Rasley, Ruwase and He 2020, arXiv:1910.02054), those of gradients and parameters ZeRO-2 and ZeRO-3.

    Raises:
        TransformError: the mesh has no such axis.

    >>> from torchpure import make_mesh
    >>> import torch
    >>> mesh = make_mesh((1,), ("data",))
    >>> partition_specs({"w": torch.ones(2, 4), "rate": torch.tensor(0.1)}, mesh, "data")
    {'w': P(None, 'data'), 'rate': P()}
    """
    names = names_of(mesh)
    if axis not in names:
        raise TransformError(f"partition_specs: the mesh has no axis {axis!r}, it has {list(names)}")
    size = mesh.shape[names.index(axis)]
    return tree.map(lambda leaf: _spec_of(leaf, size, axis), values)


def _spec_of(leaf: Any, size: int, axis: str) -> PartitionSpec:
    dims = (
        [dim for dim, length in enumerate(leaf.shape) if length and length % size == 0]
        if isinstance(leaf, Tensor)
        else []
    )
    if not dims:
        return PartitionSpec()
    longest = max(dims, key=lambda dim: leaf.shape[dim])
    return PartitionSpec(*[None] * longest, axis)

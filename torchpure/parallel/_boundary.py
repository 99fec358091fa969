"""Where global tensors become local ones, and local ones global: linear functions and their transposes.

Outside of `shard_map` all processes compute the same values, so a cotangent there is one cotangent. Inside, each
process has its own. The pairs of transposes below follow from that.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.batching import Linear, run_linear

from ._dtensors import dtensor_of
from ._mesh import AxisOfMesh, names_of
from ._partition_spec import PartitionSpec


def shard(axis: AxisOfMesh, dim: int) -> Linear:
    """Take the part of this process; transpose: concatenate the parts."""

    def run(leaf: Tensor) -> Tensor:
        size = leaf.shape[dim] // axis.size
        return leaf.narrow(dim, axis.rank * size, size).clone()

    return Linear(run, lambda: _unshard(axis, dim), None)


def _unshard(axis: AxisOfMesh, dim: int) -> Linear:
    def run(leaf: Tensor) -> Tensor:
        return axis.collective("gather", leaf).movedim(0, dim).flatten(dim, dim + 1)

    return Linear(run, lambda: shard(axis, dim), None)


def _give_each(axis: AxisOfMesh) -> Linear:
    """Give each process the same value; transpose: sum what comes back."""
    return Linear(_same, lambda: _sum(axis), None)


def _sum(axis: AxisOfMesh) -> Linear:
    return Linear(lambda leaf: axis.collective("sum", leaf), lambda: _give_each(axis), None)


def _take_one(axis: AxisOfMesh) -> Linear:
    """Take a value that all processes have, which is their mean; transpose: give each an equal share."""
    return Linear(_same, lambda: _share(axis), None)


def _share(axis: AxisOfMesh) -> Linear:
    return Linear(lambda leaf: leaf / axis.size, lambda: _mean(axis), None)


def _mean(axis: AxisOfMesh) -> Linear:
    return Linear(lambda leaf: axis.collective("sum", leaf) / axis.size, lambda: _share(axis), None)


def _same(leaf: Tensor) -> Tensor:
    return leaf.view_as(leaf)


def localize(leaf: Tensor, spec: PartitionSpec, mesh: DeviceMesh, axes: dict[str, AxisOfMesh]) -> Tensor:
    """Return the local part of a global tensor, or of a DTensor; `axes` are those of the mesh."""
    if isinstance(leaf, DTensor):
        leaf = _local_part(leaf, placements(spec, tuple(axes)), mesh)
    else:
        for dim, names in enumerate(spec.by_dim()):
            for name in names:
                leaf = run_linear(shard(axes[name], dim), leaf)
    return _give_all(leaf, _others(axes, spec))


def _local_part(leaf: DTensor, wanted: tuple[Placement, ...], mesh: DeviceMesh) -> Tensor:
    if leaf.device_mesh != mesh or leaf.placements != wanted:
        leaf = leaf.redistribute(mesh, wanted)
    with torch.set_grad_enabled(torch.is_grad_enabled() and leaf.requires_grad):  # without, it is the part itself
        return leaf.to_local()


def lift(leaf: Tensor, axes: dict[str, AxisOfMesh]) -> Tensor:
    """Return a captured tensor, as an argument that all processes have: its cotangents are summed."""
    return _give_all(leaf, _others(axes, PartitionSpec()))


def _give_all(leaf: Tensor, axes: Sequence[AxisOfMesh]) -> Tensor:
    for axis in axes:
        leaf = run_linear(_give_each(axis), leaf)
    return leaf


def globalize(
    leaf: Tensor, spec: PartitionSpec, mesh: DeviceMesh, axes: dict[str, AxisOfMesh], distributed: bool
) -> Tensor:
    """Return the global tensor of local parts; if `distributed`, as a DTensor, which keeps the parts where they are."""
    for axis in _others(axes, spec):
        leaf = run_linear(_take_one(axis), leaf)
    if distributed:
        return dtensor_of(leaf, mesh, placements(spec, tuple(axes)))
    for dim, names in enumerate(spec.by_dim()):
        for name in reversed(names):
            leaf = run_linear(_unshard(axes[name], dim), leaf)
    return leaf


def _others(axes: dict[str, AxisOfMesh], spec: PartitionSpec) -> list[AxisOfMesh]:
    return [axis for name, axis in axes.items() if name not in spec.axis_names and axis.size > 1]


@lru_cache(maxsize=1024)
def placements(spec: PartitionSpec, names: tuple[str, ...]) -> tuple[Placement, ...]:
    """Return the placements of a DTensor, one for each axis of a mesh with these names.

    Raises:
        TransformError: a dimension is split by axes in another order than that of the mesh, which a DTensor cannot be.
    """
    found: dict[str, Placement] = {name: Replicate() for name in names}
    for dim, split in enumerate(spec.by_dim()):
        if list(split) != sorted(split, key=names.index):
            raise TransformError(f"{spec!r}: a DTensor is split in the order of the mesh's axes, {names}")
        found |= {name: Shard(dim) for name in split}
    return tuple(found[name] for name in names)


def check_spec(
    caller: str, spec: PartitionSpec, mesh: DeviceMesh, leaf: Tensor, path: Callable[[], str], is_global: bool
) -> None:
    """Check that a spec fits a tensor; errors name it by `path()`.

    Raises:
        TransformError: it has more entries than the tensor has dimensions, names no axis, or does not divide a size; or
            the tensor lies on another mesh.
    """
    if isinstance(leaf, DTensor) and leaf.device_mesh != mesh:
        raise TransformError(
            f"{caller}: {path()}, {tree.describe(leaf)}, lies on the mesh {_axes_and_sizes(leaf.device_mesh)}, wanted "
            f"{_axes_and_sizes(mesh)}: lay out its full_tensor() with device_put, or name the mesh it lies on"
        )
    if not spec.axis_names and len(spec) <= leaf.ndim:
        return
    sizes = dict(zip(names_of(mesh), mesh.shape, strict=True))
    unknown = [name for name in spec.axis_names if name not in sizes]
    if unknown or len(spec) > leaf.ndim:
        why = f"the mesh has no axis {unknown[0]!r}, it has {list(sizes)}" if unknown else "it has too few dimensions"
        raise TransformError(f"{caller}: {spec!r} does not fit {path()}, {tree.describe(leaf)}: {why}")
    for dim, names in enumerate(spec.by_dim() if is_global else ()):
        parts = math.prod(sizes[name] for name in names)
        if leaf.shape[dim] % parts:
            raise TransformError(
                f"{caller}: {spec!r} splits dimension {dim} of {path()}, {tree.describe(leaf)}, in {parts} parts, but "
                f"its size {leaf.shape[dim]} is no multiple of {parts}"
            )


def _axes_and_sizes(mesh: DeviceMesh) -> str:
    axes = zip(mesh.mesh_dim_names or ["?"] * mesh.ndim, mesh.shape, strict=True)
    return f"({', '.join(f'{name}={size}' for name, size in axes)})"


def check_axes_free(caller: str, names: Sequence[str], taken: Sequence[str]) -> None:
    """Check that no axis of the mesh is open already.

    Raises:
        TransformError: one is.
    """
    for name in names:
        if name in taken:
            raise TransformError(
                f"{caller}: axis {name!r} is open already: name the axes of the inner mesh differently"
            )

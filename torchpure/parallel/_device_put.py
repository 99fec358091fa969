"""`device_put`: global tensors become DTensors."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from torchpure import tree
from torchpure._types import T
from torchpure.transforms.batching import run_linear

from ._agreement import agree, can_compare
from ._announce import announcing
from ._boundary import check_spec, placements, shard
from ._dtensors import dtensor_of
from ._mesh import axes_of
from ._partition_spec import PartitionSpec
from ._specs import spread


def device_put(values: T, mesh: DeviceMesh, specs: Any = PartitionSpec()) -> T:  # noqa: B008 it is immutable
    """Lay out a tree of tensors on a mesh: return the same values as torch's DTensors.

    Every process gives the same global tensors, and keeps the part that its spec describes; `P()` keeps all of it. A
    DTensor is laid out anew. `specs` is a prefix of the tree. Leaves that are not tensors pass through.

    Law: `device_put(x, mesh, spec).full_tensor() == x`, bit for bit.

    Raises:
        TransformError: a spec does not fit a tensor or the mesh.
        MeshError: the processes have different values, one has failed or ended, or did not come in time.

    >>> from torchpure import make_mesh
    >>> import torch
    >>> mesh = make_mesh((1,), ("data",))
    >>> device_put({"w": torch.ones(4, 2)}, mesh, PartitionSpec("data"))["w"].placements
    (Shard(dim=0),)
    """
    return announcing(mesh, lambda: _put(values, mesh, specs))


def _put(values: Any, mesh: DeviceMesh, specs: Any) -> Any:
    leaves, structure = tree.flatten(values)
    paths = [f"the tensor at `{path}`" if path not in {"", "."} else "the tensor" for path in tree.paths(values)]
    rows = list(zip(leaves, spread("device_put", specs, values, "specs"), paths, strict=True))
    tensors = [(leaf, path) for leaf, _, path in rows if isinstance(leaf, Tensor)]
    for leaf, spec, path in rows:
        if isinstance(leaf, Tensor):
            check_spec("device_put", spec, mesh, leaf, partial(str, path), is_global=True)
    plain = [(leaf, path) for leaf, path in tensors if not isinstance(leaf, DTensor)]
    if can_compare([leaf for leaf, _ in plain]):
        text = f"device_put of {len(tensors)} tensors"
        agree(text, mesh, [leaf for leaf, _ in plain], [path for _, path in plain], [PartitionSpec()] * len(plain))
    return tree.unflatten(structure, [_put_leaf(leaf, spec, mesh) for leaf, spec, _ in rows])


def _put_leaf(leaf: Any, spec: PartitionSpec, mesh: DeviceMesh) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    axes = axes_of(mesh)
    layout = placements(spec, tuple(axes))
    if isinstance(leaf, DTensor):
        return leaf.redistribute(mesh, layout)
    for dim, names in enumerate(spec.by_dim()):
        for name in names:
            leaf = run_linear(shard(axes[name], dim), leaf)
    return dtensor_of(leaf if spec.axis_names else leaf.clone(), mesh, layout)

"""`pmap`: one member of a batch on each process."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch.distributed as dist

from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.batching import Mapping, vmap
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.engine import describe_function

from ._mesh import make_mesh, world_size
from ._partition_spec import PartitionSpec
from ._shard_map import Sharding


@hint_keywords(
    in_axes="write in_dims",
    out_axes="write out_dims",
    devices="leave it out: all processes take part",
    static_broadcasted_argnums="leave it out: what is no tensor passes through",
    donate_argnums="write jit(pmap(fn), donate=...)",
)
def pmap(
    fn: Callable[..., Any], axis_name: str = "processes", *, in_dims: Any = 0, out_dims: Any = 0
) -> Callable[..., Any]:
    """Return the function that maps `fn` over one dimension of its arguments, one member on each process.

    Every process gives all members, runs one, and gets the results of all. Collectives use the axis `axis_name`.

    Law: `pmap(f, "i")(xs)` is `vmap(f, axis_name="i")(xs)`, if xs has a member for each process.

    Raises:
        TransformError: the number of members is not the number of processes.
        MeshError: the processes disagree, one has failed or ended, or did not come in time.

    >>> import torch
    >>> from torchpure import psum
    >>> pmap(lambda x: psum(x, "i") * 2, "i")(torch.tensor([3.0]))
    tensor([6.])
    """
    check_callable("pmap", fn)
    mapping, meshes = Mapping(vmap(fn, in_dims, out_dims), fn, in_dims, out_dims), dict[int, Any]()

    @wraps(fn, updated=())
    def mapped(*args: Tree) -> Tree:
        size = mapping.split(args)[3]
        if size != world_size():
            raise TransformError(
                f"pmap: {describe_function(fn)} has {size} members, and the program has {world_size()} processes: give "
                "one to each, or split more of them with vmap(shard_map(...), spmd_axis_name=...)"
            )
        key = id(dist.group.WORLD)
        mesh = meshes.setdefault(key, None) or make_mesh((size,), (axis_name,))
        meshes[key] = mesh
        return Sharding(fn, mesh, PartitionSpec(), PartitionSpec(), check=True).over_members(
            axis_name, mapping, collective=True
        )(*args)

    return mapped

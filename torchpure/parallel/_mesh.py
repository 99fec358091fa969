"""Meshes of processes: `torch.distributed`'s DeviceMesh, whose axes have names."""

import math
import os
from collections.abc import Hashable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from torchpure._torch import disable_current_modes, set_group_timeout
from torchpure.errors import MeshError, TransformError
from torchpure.transforms.calls import hint_keywords
from torchpure.transforms.engine import without_function_modes

from ._collective_op import collective
from .messages import group_named

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@hint_keywords(devices="write device, such as 'cpu' or 'cuda'", axis_types="leave it out: every axis is manual")
def make_mesh(
    axis_shapes: Sequence[int],
    axis_names: Sequence[str],
    *,
    device: str | None = None,
    timeout: float | None = None,
) -> DeviceMesh:
    """Arrange all processes of the program in a grid with named axes, and return torch's DeviceMesh.

    The product of `axis_shapes` is the number of processes; one of them may be -1, for what remains. If torch has no
    default group of processes yet, it is made, and stays torch's own: from the variables of `torchrun`, or of this
    process alone where they are not set. So call `torch.distributed.init_process_group` before, if you call it at all.
    `device` is "cuda" where torch finds one, else "cpu". `timeout` is the number of seconds that a collective waits for
    other processes; by default, torch's 30 minutes.

    Raises:
        TransformError: the sizes do not fit the number of processes, or the names.
        MeshError: not all processes started in time.

    >>> mesh = make_mesh((1,), ("data",))
    >>> mesh.shape, mesh.mesh_dim_names
    ((1,), ('data',))
    """
    shape, names = tuple(axis_shapes), tuple(axis_names)
    if len(shape) != len(names) or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise TransformError(f"make_mesh: wanted a name for each of the axes {shape}, each once; got {names}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    world = world_size()
    if shape.count(-1) == 1 and world % math.prod(size for size in shape if size != -1) == 0:
        shape = tuple(world // -math.prod(shape) if size == -1 else size for size in shape)
    if min(shape, default=1) < 1 or math.prod(shape) != world:
        sizes = ", ".join(f"{name}={size}" for name, size in zip(names, shape, strict=True))
        raise TransformError(
            f"make_mesh: the mesh ({sizes}) does not fit the {world} processes of the program: give it other sizes, or "
            "start as many processes with torchrun --nproc-per-node"
        )
    with disable_current_modes(), without_function_modes():  # torch reads tensors here, also while a tracer runs
        _start_default_group(device, timeout)
        mesh = init_device_mesh(device, shape, mesh_dim_names=names)
    if timeout is not None:
        for group in {id(group): group for group in [dist.group.WORLD, *mesh.get_all_groups()]}.values():
            set_group_timeout(timedelta(seconds=timeout), group)
            group_named(group).timeout = timedelta(seconds=timeout)
    return mesh


def world_size() -> int:
    """Return the number of processes of the program."""
    if dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _TORCHRUN) else 1


def _start_default_group(device: str, timeout: float | None) -> None:
    if dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if not all(name in os.environ for name in _TORCHRUN):
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    limit = dist.default_pg_timeout if timeout is None else timedelta(seconds=timeout)
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=limit))
        # the store of torchrun may outlive a restart, and has the addresses of the processes that ended then
        store = dist.PrefixStore(f"torchpure/attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    except RuntimeError as error:
        waited = f"waited {timeout} seconds" if timeout else "waited"
        raise MeshError(
            f"make_mesh: rank {os.environ['RANK']} {waited} for all {world_size()} processes to start, and some did "
            "not: start them with torchrun, or wait longer with timeout="
        ) from error


class AxisOfMesh:
    """A named axis of a mesh: what collectives need of it."""

    __slots__ = ("group", "key", "name", "rank", "size")

    def __init__(self, mesh: DeviceMesh, name: str) -> None:
        self.name = name
        self.group = group_named(mesh.get_group(name), f"axis {name!r}")
        self.rank, self.size = self.group.rank, self.group.size
        self.key: Hashable = ("mesh axis", name, self.group.group.group_name, self.size)

    def collective(self, kind: str, leaf: Tensor, sources: Sequence[int] = ()) -> Tensor:
        """Run a collective on a plain tensor."""
        return collective(leaf, kind, self.group, sources)


def axes_of(mesh: DeviceMesh) -> dict[str, AxisOfMesh]:
    """Return the axes of a mesh by name."""
    return {name: AxisOfMesh(mesh, name) for name in names_of(mesh)}


def names_of(mesh: Any) -> tuple[str, ...]:
    """Return the names of the axes of a mesh.

    Raises:
        TransformError: it is no mesh, or its axes have no names.
    """
    if not isinstance(mesh, DeviceMesh) or not mesh.mesh_dim_names:
        raise TransformError(f"wanted a mesh with named axes, from tp.make_mesh; got {type(mesh).__name__}")
    return tuple(mesh.mesh_dim_names)

"""The processes of a fit: a mesh that `torchrun` started, of which the first process writes the run."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from torchpure.errors import InputError, TransformError

from .fits import FitConfig

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@contextmanager
def open_mesh(config: FitConfig) -> "Iterator[DeviceMesh | None]":
    """Yield the mesh of a fit, which all processes of `torchrun` make together; None for a fit of one process.

    Raises:
        InputError: the mesh does not fit the number of processes.
        MeshError: not all processes started, or they were given different options.
    """
    count = _num_started()
    if config.mesh is None:
        if count > 1:
            raise InputError(f"--mesh: there are {count} processes: share the points with --mesh data={count}")
        yield None
        return
    from torchpure.parallel import device_put, make_mesh

    is_own = not dist.is_initialized()
    names, sizes = zip(*(axis.split("=") for axis in config.mesh.split(",")), strict=True)
    try:
        mesh = make_mesh([int(size) for size in sizes], names, device=torch.device(config.device).type)
    except TransformError as error:
        raise InputError(f"--mesh: {error}") from None
    try:
        digest = hashlib.sha256(config.model_dump_json().encode()).digest()
        device_put({"options": torch.tensor(list(digest))}, mesh)
        yield mesh
    finally:
        if is_own:
            dist.destroy_process_group()


def is_first() -> bool:
    """Return whether this process writes and prints.

    >>> is_first()  # it is alone
    True
    """
    return (dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))) == 0


def _num_started() -> int:
    """Return how many processes `torchrun` has started for this program."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def for_these_processes(config: FitConfig) -> FitConfig:
    """Return the configuration of a run that these processes share, however many it had before."""
    by_hand = config.mesh is not None and dist.is_initialized()
    count = dist.get_world_size() if by_hand else _num_started()
    return config.model_copy(update={"mesh": f"data={count}" if count > 1 else None})


def writes(mesh: "DeviceMesh | None") -> bool:
    """Return whether this process writes the files of a run."""
    return mesh is None or is_first()


@contextmanager
def own_folder(out: Path | None, mesh: "DeviceMesh | None") -> Iterator[Path | None]:
    """Yield the folder of a run; the files of other processes than the first are removed."""
    if writes(mesh):
        yield out
        return
    with TemporaryDirectory() as folder:
        yield Path(folder) / "run"


def check_points(mesh: "DeviceMesh | None", config: FitConfig, points: int) -> None:
    """Check that the processes divide every batch.

    Raises:
        InputError: they do not.
    """
    if mesh is None:
        return
    size = dict(zip(mesh.mesh_dim_names or (), mesh.shape, strict=True))["data"]
    sizes = {"--train-points": points}
    if config.batch_size is not None:
        sizes = {"--batch-size": config.batch_size, "the last batch of an epoch": points % config.batch_size}
    for name, found in sizes.items():
        if found % size:
            raise InputError(
                f"{name}: {size} processes take equal parts of {found} points: choose a multiple of {size}"
            )


def agreed(mesh: "DeviceMesh | None", stop: Callable[[], int]) -> Callable[[], int]:
    """Return a function that ends the run on every process if it ends on one."""
    if mesh is None:
        return stop
    from torchpure.parallel import P, shard_map
    from torchpure.transforms.batching import pmax

    def largest(code: Tensor) -> Tensor:
        return pmax(code, "data")

    together = shard_map(largest, mesh, P(), P(), check=False)
    return lambda: int(together(torch.tensor(stop())))

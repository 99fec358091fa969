"""DTensors: which part of a tensor each process holds, and which process writes it."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchpure import tree
from torchpure._dtensors import dtensor_class, is_dtensor
from torchpure._types import Tree
from torchpure.errors import InputError

from ._boxes import Box, Lengths

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def has_distributed(value: Tree) -> bool:
    """Tell whether a tree has DTensors: then all processes save and restore it together."""
    if dtensor_class() is None:
        return False
    try:
        return any(is_dtensor(leaf) for leaf in tree.leaves(value))
    except RecursionError:  # a tree that is too deep is refused later, with its path
        return False


def check_placements(leaf: "DTensor", where: str) -> None:
    """Check that a DTensor lies on all processes, and that its parts are parts of its value.

    Raises:
        InputError: it does not.
    """
    from torch import distributed
    from torch.distributed.tensor import Replicate, Shard

    odd = [placement for placement in leaf.placements if type(placement) not in (Shard, Replicate)]
    if odd:
        raise InputError(
            f"{where} has the placement {odd[0]!r}; wanted Shard or Replicate: lay it out with tp.device_put, or with "
            "its method redistribute"
        )
    ranks = sorted(leaf.device_mesh.mesh.flatten().tolist())
    if ranks != [*range(distributed.get_world_size())]:
        raise InputError(
            f"{where} lies on the processes {ranks} of {distributed.get_world_size()}; wanted a mesh of all processes, "
            "as tp.make_mesh makes it"
        )


def boxes_of(leaf: "DTensor") -> list[Box]:
    """Return the part that each process holds, by rank."""
    grid = leaf.device_mesh.mesh.cpu()
    dims = [getattr(placement, "dim", None) for placement in leaf.placements]
    boxes = [Box((), ())] * grid.numel()
    for place in product(*map(range, grid.shape)):
        boxes[int(grid[place])] = _box(tuple(leaf.shape), dims, tuple(grid.shape), place)
    return boxes


def _box(shape: Lengths, dims: Sequence[int | None], sizes: Lengths, place: Sequence[int]) -> Box:
    """Split a shape along one dimension after the other, as `torch.chunk` does; the last parts may be empty."""
    offset, length = [0] * len(shape), [*shape]
    for dim, size, index in zip(dims, sizes, place, strict=True):
        if dim is not None:
            chunk = -(-length[dim] // size)
            start = min(index * chunk, length[dim])
            offset[dim] += start
            length[dim] = min(chunk, length[dim] - start)
    return Box(tuple(offset), tuple(length))


def local_part(leaf: "DTensor") -> Tensor:
    """Return what this process holds."""
    return leaf.to_local().detach()


def distribute(values: Tensor, like: "DTensor") -> Tensor:
    """Return a DTensor laid out as another, of the values that this process holds."""
    from torch.distributed.tensor import DTensor

    shape = like.shape
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(values, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride)


def owned(boxes: Sequence[Box], element: int, loads: list[int]) -> list[tuple[int, Box]]:
    """Choose a process for each of the different boxes: of those that hold it, the one with the least to write.

    `loads` has the bytes that each process writes; those of the boxes are added.
    """
    holders: dict[Box, list[int]] = {}
    for rank, box in enumerate(boxes):
        if box.numel:
            holders.setdefault(box, []).append(rank)
    chosen = []
    for box, ranks in holders.items():
        rank = min(ranks, key=lambda rank: (loads[rank], rank))
        loads[rank] += box.numel * element
        chosen.append((rank, box))
    return chosen

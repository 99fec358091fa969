"""DTensors of a part of a mesh, such as those of a tensor-parallel plan: their local parts, and back."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from torchpure import tree
from torchpure._dtensors import is_dtensor
from torchpure._types import Tree

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def local_parts(values: Tree, mesh: "DeviceMesh") -> tuple[Tree, Callable[[Tree], Tree]]:
    """Replace DTensors that lie on another mesh by their local parts; return also the function that undoes it.

    A plan splits parameters over the axis "model" of a mesh with the axes "data" and "model". Every place on the axis
    "data" has the same parts, which take their own rows of a batch.

    Law: undo(parts) == values, for the parts and the function that it returns.
    """
    leaves, structure = tree.flatten(values)
    elsewhere = [leaf if is_dtensor(leaf) and leaf.device_mesh != mesh else None for leaf in leaves]
    parts = [leaf if old is None else old.to_local() for leaf, old in zip(leaves, elsewhere, strict=True)]

    def undo(parts: Tree) -> Tree:
        new = tree.ordered(structure, parts, "train: the parts of a tree")
        made = [part if old is None else _like(part, old) for part, old in zip(new, elsewhere, strict=True)]
        return tree.unflatten(structure, made)

    return tree.unflatten(structure, parts), undo


def _like(part: Tensor, old: "DTensor") -> "DTensor":
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, old.device_mesh, old.placements, run_check=False, shape=old.shape, stride=old.stride()
    )

"""Named axes: open one for a vmap, and find those that a collective names."""

from contextlib import AbstractContextManager

from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.context import (
    collapsed_axes,
    has_substituted_operands,
    open_axes,
    open_axis,
    open_mesh_axes,
    record_collective,
)

from ._process_axis import ProcessAxis
from ._vmap_axis import VmapAxis

Names = str | tuple[str, ...]  # the name of one axis, or the names of several
NamedAxis = VmapAxis | ProcessAxis


class Axis:
    """A named axis of a vmap."""

    __slots__ = ("_name", "_size")

    def __init__(self, name: str, size: int) -> None:
        if name in open_axes():
            raise TransformError(f"vmap: axis_name {name!r} is taken by a vmap around this one: choose another name")
        if name in open_mesh_axes():
            raise TransformError(f"vmap: axis_name {name!r} is an axis of the mesh of shard_map: choose another name")
        self._name, self._size = name, size

    def open(self, index: Tensor) -> AbstractContextManager[None]:
        """Open the axis inside of the block, so that collectives can use it."""
        return open_axis(self._name, index, self._size)


def _lookup_axis(caller: str, axis_name: str) -> NamedAxis:
    if axis_name in open_axes():
        return VmapAxis(*open_axes()[axis_name])
    if axis_name in open_mesh_axes():
        return ProcessAxis(open_mesh_axes()[axis_name])
    if axis_name in collapsed_axes():
        raise TransformError(
            f"{caller}: the rule of a custom_vmap has all members of axis {axis_name!r} at once: use their dimension 0"
        )
    names = ", ".join(map(repr, [*open_axes(), *open_mesh_axes()])) or "none"
    raise TransformError(
        f"{caller}: there is no axis {axis_name!r} here (axes: {names}): name it in vmap(fn, axis_name={axis_name!r}), "
        "or in the mesh of shard_map"
    )


def lookup_axes(caller: str, axis_name: Names) -> list[NamedAxis]:
    """Return these axes.

    Raises:
        TransformError: one of them is not open, or named twice.
    """
    if isinstance(axis_name, str):
        return [_lookup_axis(caller, axis_name)]
    if not isinstance(axis_name, tuple | list) or not all(isinstance(name, str) for name in axis_name):
        raise TransformError(
            f"{caller}: wanted the name of an axis or a tuple of names, got {tree.describe(axis_name)}"
        )
    if len(set(axis_name)) < len(axis_name):
        raise TransformError(f"{caller}: an axis is named twice in {axis_name!r}: name each one once")
    return [_lookup_axis(caller, name) for name in axis_name]


def begin_collective(caller: str, axis_name: Names) -> list[NamedAxis]:
    """Return the axes of a collective that runs now.

    Raises:
        TransformError: one of them is not open, or members that chose other branches are inactive here.
    """
    axes = lookup_axes(caller, axis_name)
    for name in [axis_name] if isinstance(axis_name, str) else axis_name:
        if has_substituted_operands(name):
            raise TransformError(
                f"{caller}: this collective over axis {name!r} runs only in the derivative of a branch, and members "
                "chose different branches: choose with torch.where"
            )
        record_collective(name)
    return axes

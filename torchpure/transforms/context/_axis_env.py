"""The axis environment of a function inside of a vmap: the named axes, and which members are active.

A rule may run a function again after the transforms around it are closed, at other levels. So the tensors of the axis
environment become inputs of the operation, as captured tensors do. `AxisEnv.restored` puts their replacements back.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor

from torchpure.transforms.engine import expose, mapped_levels

from ._context import Axes, Body, MeshAxis, current


@contextmanager
def _set(**fields: Any) -> Iterator[None]:
    """Set fields of the context inside of the block."""
    before = {name: getattr(current, name) for name in fields}
    vars(current).update(fields)
    try:
        yield
    finally:
        vars(current).update(before)


class AxisEnv:
    """A snapshot of the axis environment; a part of `CallEnv`."""

    __slots__ = ("_axes", "_masks", "_mesh_axes", "tensors")

    def __init__(self) -> None:
        self._mesh_axes = current.mesh_axes
        self._axes, self._masks = current.axes, current.active_masks
        self.tensors = (*(index for index, _ in current.axes.values()), *(mask for mask, _ in current.active_masks))

    def names(self, batched: Sequence[bool]) -> list[str]:
        """Return the axes whose index is batched; the flags are those of all tensors."""
        return [name for name, flag in zip(self._axes, batched, strict=False) if flag]

    def positions(self, names: Collection[str]) -> list[int]:
        """Return the positions of the indices of these axes among the tensors."""
        return [i for i, name in enumerate(self._axes) if name in names]

    def restored(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Restore the environment inside of the block, with these tensors instead of its own."""
        pairs = zip(self._axes.items(), tensors, strict=False)
        axes = {name: (index, size) for (name, (_, size)), index in pairs}
        rest = zip(tensors[len(self._axes) :], self._masks, strict=True)
        masks = (*((mask, flag) for mask, (_, flag) in rest), *current.pending_masks)
        return _set(
            axes=axes, mesh_axes=self._mesh_axes, active_masks=masks, pending_masks=(), resumables=(), body=Body()
        )


def new_body() -> AbstractContextManager[None]:
    """Run the function of an operation for the first time, in the environment that is active."""
    return _set(body=Body())


def collapse_axes(names: Collection[str]) -> AbstractContextManager[None]:
    """Run a custom rule that gets all members of these axes at once, so no active mask applies."""
    axes = {name: pair for name, pair in current.axes.items() if name not in names}
    return _set(axes=axes, active_masks=(), collapsed_axes=current.collapsed_axes.union(names))


def collapsed_axes() -> frozenset[str]:
    """Return the names of axes whose members the running custom rule has all at once."""
    return current.collapsed_axes


def open_axes() -> Axes:
    """Return the named axes that are open."""
    return current.axes


def open_axis(name: str, index: Tensor, size: int) -> AbstractContextManager[None]:
    """Open a named axis inside of the block."""
    return _set(axes={**current.axes, name: (index, size)})


def open_mesh_axes() -> dict[str, MeshAxis]:
    """Return the axes of meshes that are open."""
    return current.mesh_axes


def open_mesh(axes: Sequence[MeshAxis]) -> AbstractContextManager[None]:
    """Open the axes of a mesh of processes inside of the block."""
    return _set(mesh_axes={**current.mesh_axes, **{axis.name: axis for axis in axes}})


def active_masks() -> tuple[Tensor, ...]:
    """Return bools of shape (): a member is active where all of them are True.

    The results of inactive members are dropped.
    """
    return tuple(mask for mask, _ in current.active_masks)


def active_where(mask: Tensor) -> AbstractContextManager[None]:
    """Mark members as inactive where the mask is False."""
    return _set(active_masks=(*current.active_masks, (mask, False)))


def next_active_where(mask: Tensor, substituted: bool) -> AbstractContextManager[None]:
    """Do what `active_where` does, in the next function that restores an axis environment.

    `substituted` says that inactive members get the operands of an active one.
    """
    return _set(pending_masks=(*current.pending_masks, (mask, substituted)))


@contextmanager
def collectives_used() -> Iterator[set[str]]:
    """Collect the axes of the collectives that run inside of the block."""
    found = set[str]()
    with _set(collectives=(*current.collectives, found)):
        yield found


def record_collective(name: str) -> None:
    """Record that a collective over an axis runs."""
    for found in current.collectives:
        found.add(name)


def has_substituted_operands(name: str) -> bool:
    """Tell whether some members of an axis have the operands of other members here."""
    return any(substituted and varies_over(expose(mask), [name]) for mask, substituted in current.active_masks)


def varies_over(leaf: Tensor, names: Collection[str]) -> bool:
    """Tell whether a tensor differs between the members of one of these axes."""
    return any(
        mapped_levels(leaf) & mapped_levels(expose(current.axes[name][0])) for name in names if name in current.axes
    )

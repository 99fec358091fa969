"""The state of one thread that transforms read from the calls around them."""

import threading
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from torch import Tensor

from torchpure._torch import get_sequence_nr

Axes = dict[str, tuple[Tensor, int]]  # name -> index of the member, number of members
Masks = tuple[tuple[Tensor, bool], ...]  # a mask, and whether inactive members get operands of an active one
Offset = int | Tensor  # a tensor in a loop over chunks, which counts its steps


class MeshAxis(Protocol):
    """A named axis of a mesh of processes: its collectives on plain tensors, without derivatives."""

    name: str
    size: int  # number of processes along the axis
    rank: int  # the place of this process along the axis
    key: Hashable  # tells this axis from all others of the process

    def collective(self, kind: str, leaf: Tensor, sources: Sequence[int] = ()) -> Tensor:
        """Run one of "sum", "gather", "scatter_sum", "exchange", and "permute" from these sources."""
        ...


class Body:
    """One run of an operation's function."""

    __slots__ = ("_first_sequence_nr",)

    def __init__(self) -> None:
        self._first_sequence_nr = get_sequence_nr()

    def computed(self, leaf: Tensor) -> bool:
        """Return whether this run computed a tensor that requires grad; others were given to it or captured."""
        return leaf.grad_fn is not None and leaf.grad_fn._sequence_nr() >= self._first_sequence_nr


class Context(threading.local):
    """What surrounds a call; each thread has its own. Code that sets a field restores it when its block ends."""

    def __init__(self) -> None:
        self.axes: Axes = {}  # the named axes that are open
        self.mesh_axes: dict[str, MeshAxis] = {}  # the axes of meshes that are open
        self.mesh_collectives = 0  # how many collectives over axes of meshes this thread has called
        self.active_masks: Masks = ()  # of the branches and loops that run here
        self.pending_masks: Masks = ()  # for the next function that restores an axis environment
        self.collapsed_axes: frozenset[str] = frozenset()  # a custom rule has their members at dimension 0
        self.collectives: tuple[set[str], ...] = ()  # a set for each open `collectives_used`
        self.in_member = False  # whether the program of a single member of a vmap is traced
        self.suppressions = 0  # how many `suppress_callbacks` are open
        self.finds_captures = False  # a body runs to find the tensors that it captures, and for no other purpose
        self.sampled_level: int | None = None  # of a vmap whose members a body runs on, to learn which results have any
        self.chunk_offsets: dict[int, Offset] = {}  # level of a vmap -> index of its first member
        self.body: Body | None = None  # the run of an operation's function that is active; None outside of all
        self.resumables: tuple[Any, ...] = ()  # calls of modules and modes that are active
        self.dispatch_depths: list[int] = []  # length of torch's dispatch stack at each open capture mode


current = Context()

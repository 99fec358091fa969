"""What is around a function that runs inside of a vmap: the named axes, and the members for whom it runs.

Rules run functions again when the transform around them has long been closed, at other levels. So a function takes the
tensors of its surroundings along as if it had captured them, and finds them, or those in their places, when it runs.
"""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor

from torchpure.transforms.engine import expose, mapped_levels

Axes = dict[str, tuple[Tensor, int]]  # name -> the member's index, and the number of members
Chosen = tuple[tuple[Tensor, bool], ...]  # whether the member is one; whether others get the operands of one


class _Here(threading.local):
    def __init__(self) -> None:
        self.axes: Axes = {}
        self.taking: Chosen = ()  # of the branches and loops around here
        self.waiting: Chosen = ()  # the same, from a rule that is about to run a function
        self.gone: frozenset[str] = frozenset()  # axes whose members a rule has all at once
        self.meetings: tuple[set[str], ...] = ()  # of those who ask over which axes members meet


_here = _Here()


@contextmanager
def _having(**parts: Any) -> Iterator[None]:
    """Have other parts around."""
    before = {name: getattr(_here, name) for name in parts}
    vars(_here).update(parts)
    try:
        yield
    finally:
        vars(_here).update(before)


class Around:
    """What is around here, to be put around functions that run later."""

    __slots__ = ("_axes", "_taking", "tensors")

    def __init__(self) -> None:
        self._axes, self._taking = _here.axes, _here.taking
        self.tensors = (*(index for index, _ in _here.axes.values()), *(members for members, _ in _here.taking))

    def names(self, marks: Sequence[bool]) -> list[str]:
        """Return the names of axes whose index is marked, of all tensors."""
        return [name for name, mark in zip(self._axes, marks, strict=False) if mark]

    def places(self, names: Collection[str]) -> list[int]:
        """Return the places of the indices of axes among the tensors."""
        return [place for place, name in enumerate(self._axes) if name in names]

    def again(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Have the same around, with other tensors in the places of its own."""
        pairs = zip(self._axes.items(), tensors, strict=False)
        axes = {name: (index, size) for (name, (_, size)), index in pairs}
        rest = zip(tensors[len(self._axes) :], self._taking, strict=True)
        taking = (*((members, flag) for members, (_, flag) in rest), *_here.waiting)
        return _having(axes=axes, taking=taking, waiting=())


def without(names: Collection[str]) -> AbstractContextManager[None]:
    """Run a rule that has all members of these axes at once, and so none for whom alone it runs."""
    axes = {name: pair for name, pair in _here.axes.items() if name not in names}
    return _having(axes=axes, taking=(), gone=_here.gone.union(names))


def gone() -> frozenset[str]:
    """Return the names of axes whose members the rule that runs here has all at once."""
    return _here.gone


def axes() -> Axes:
    """Return the axes that are open here."""
    return _here.axes


def axis_open(name: str, index: Tensor, size: int) -> AbstractContextManager[None]:
    """Open an axis."""
    return _having(axes={**_here.axes, name: (index, size)})


def taking() -> tuple[Tensor, ...]:
    """Return bools of shape (): a member for whom one of them is False only runs along here."""
    return tuple(members for members, _ in _here.taking)


def only_for(members: Tensor) -> AbstractContextManager[None]:
    """Run code for some members, the others along with them: what they do there is not asked for."""
    return _having(taking=(*_here.taking, (members, False)))


def next_only_for(members: Tensor, alike: bool) -> AbstractContextManager[None]:
    """Do what `only_for` does, for the function with surroundings of its own that a rule runs next.

    `alike` says that the other members get the operands of one of them.
    """
    return _having(waiting=(*_here.waiting, (members, alike)))


@contextmanager
def meetings() -> Iterator[set[str]]:
    """Collect the axes over which members meet."""
    found = set[str]()
    with _having(meetings=(*_here.meetings, found)):
        yield found


def met(name: str) -> None:
    """Tell those who ask that members meet over an axis."""
    for found in _here.meetings:
        found.add(name)


def replaced_over(name: str) -> bool:
    """Tell whether some members of an axis have the operands of others here."""
    return any(alike and differ_over(expose(members), [name]) for members, alike in _here.taking)


def differ_over(leaf: Tensor, names: Collection[str]) -> bool:
    """Tell whether a tensor differs between the members of one of these axes."""
    return any(mapped_levels(leaf) & mapped_levels(expose(_here.axes[name][0])) for name in names if name in _here.axes)

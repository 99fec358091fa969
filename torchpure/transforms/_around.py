"""What is around a function that runs inside of a vmap: the named axes, and the members for whom it runs.

Rules run functions again when the transform around them has long been closed, at other levels. So a function takes the
tensors of its surroundings along as if it had captured them, and finds them, or those in their places, when it runs.
"""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from ._levels import functorch
from ._seen import seen

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

    @contextmanager
    def again(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Have the same around, with other tensors in the places of its own."""
        before = _here.axes, _here.taking, _here.waiting
        pairs = zip(self._axes.items(), tensors, strict=False)
        _here.axes = {name: (index, size) for (name, (_, size)), index in pairs}
        rest = zip(tensors[len(self._axes) :], self._taking, strict=True)
        _here.taking, _here.waiting = (*((members, flag) for members, (_, flag) in rest), *_here.waiting), ()
        try:
            yield
        finally:
            _here.axes, _here.taking, _here.waiting = before


@contextmanager
def without(names: Collection[str]) -> Iterator[None]:
    """Run a rule that has all members of these axes at once, and so none for whom alone it runs."""
    before = _here.axes, _here.taking, _here.gone
    _here.axes = {name: pair for name, pair in _here.axes.items() if name not in names}
    _here.taking, _here.gone = (), _here.gone.union(names)
    try:
        yield
    finally:
        _here.axes, _here.taking, _here.gone = before


def gone() -> frozenset[str]:
    """Return the names of axes whose members the rule that runs here has all at once."""
    return _here.gone


def axes() -> Axes:
    """Return the axes that are open here."""
    return _here.axes


@contextmanager
def axis_open(name: str, index: Tensor, size: int) -> Iterator[None]:
    """Open an axis."""
    before = _here.axes
    _here.axes = {**before, name: (index, size)}
    try:
        yield
    finally:
        _here.axes = before


def taking() -> tuple[Tensor, ...]:
    """Return bools of shape (): a member for whom one of them is False only runs along here."""
    return tuple(members for members, _ in _here.taking)


@contextmanager
def only_for(members: Tensor) -> Iterator[None]:
    """Run code for some members, the others along with them: what they do there is not asked for."""
    before = _here.taking
    _here.taking = (*before, (members, False))
    try:
        yield
    finally:
        _here.taking = before


@contextmanager
def next_only_for(members: Tensor, alike: bool) -> Iterator[None]:
    """Do what `only_for` does, for the function with surroundings of its own that a rule runs next.

    `alike` says that the other members get the operands of one of them.
    """
    before = _here.waiting
    _here.waiting = (*before, (members, alike))
    try:
        yield
    finally:
        _here.waiting = before


@contextmanager
def meetings() -> Iterator[set[str]]:
    """Collect the axes over which members meet."""
    before, found = _here.meetings, set[str]()
    _here.meetings = (*before, found)
    try:
        yield found
    finally:
        _here.meetings = before


def met(name: str) -> None:
    """Tell those who ask that members meet over an axis."""
    for found in _here.meetings:
        found.add(name)


def replaced_over(name: str) -> bool:
    """Tell whether some members of an axis have the operands of others here."""
    return any(alike and differ_over(seen(members), [name]) for members, alike in _here.taking)


def differ_over(leaf: Tensor, names: Collection[str]) -> bool:
    """Tell whether a tensor differs between the members of one of these axes."""
    return any(_levels_of(leaf) & _levels_of(seen(_here.axes[name][0])) for name in names if name in _here.axes)


def _levels_of(leaf: Tensor) -> set[int]:
    """Return the levels of the vmaps whose members differ in a tensor."""
    found = set()
    while functorch.is_functorch_wrapped_tensor(leaf):
        if functorch.is_batchedtensor(leaf):
            found.add(functorch.maybe_get_level(leaf))
        leaf = functorch.get_unwrapped(leaf)
    return found

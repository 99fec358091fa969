"""What follows a sweep, and may end it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple


class SweepProgress(NamedTuple):
    """Where a sweep stands, after a window of steps."""

    group: int  # from 0
    groups: int  # that are known
    label: str  # what the members of the group share
    step: int  # of the group
    steps: int
    members: int  # of the group
    running: int  # of these
    all_members: int
    finished: int  # of all members
    failed: int  # of all members
    best: float  # the least training loss so far; infinite if there is none
    best_index: int


class SweepWatcher(NamedTuple):
    """What follows a sweep, and may end it."""

    report: Callable[[SweepProgress], None]
    stop: Callable[[], int]  # the number of the signal that ends the sweep, or 0


# number of threads, or 0 for the number that torch has -> a watcher for the time of the training
SweepWatch = Callable[[int], AbstractContextManager[SweepWatcher]]


@contextmanager
def unwatched_sweep(threads: int) -> Iterator[SweepWatcher]:
    """Yield a watcher that shows nothing and never ends the sweep."""
    yield SweepWatcher(lambda progress: None, lambda: 0)

"""Pause the garbage collector during tracing, where it would take a third of the time."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Pauses:
    """The number of active pauses in all threads, and whether the collector was enabled before the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count, self._enabled = 0, False

    def add(self, number: int) -> None:
        """Begin or end pauses; restore the collector when the last pause ends."""
        with self._lock:
            if not self._count:
                self._enabled = gc.isenabled()
            self._count += number
            if self._enabled:
                (gc.disable if self._count > 0 else gc.enable)()


_pauses = _Pauses()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector.

    >>> with gc_paused():
    ...     gc.isenabled()
    False
    """
    _pauses.add(1)
    try:
        yield
    finally:
        _pauses.add(-1)


@contextmanager
def gc_resumed() -> Iterator[None]:
    """Enable the collector inside a pause of this thread, for long work that makes much garbage."""
    _pauses.add(-1)
    try:
        yield
    finally:
        _pauses.add(1)

"""The collector of garbage, paused: while programs are traced, a third of the time is its own."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Pauses:
    """Who has paused it, in all threads, and what it did before the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count, self._enabled = 0, False

    def add(self, number: int) -> None:
        """Begin or end pauses: it is at work where it was before, while there are none."""
        with self._lock:
            if not self._count:
                self._enabled = gc.isenabled()
            self._count += number
            if self._enabled:
                (gc.disable if self._count > 0 else gc.enable)()


_pauses = _Pauses()


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the collector.

    >>> with uncollected():
    ...     gc.isenabled()
    False
    """
    _pauses.add(1)
    try:
        yield
    finally:
        _pauses.add(-1)


@contextmanager
def collected() -> Iterator[None]:
    """Let it go on inside of a pause of this thread, for work that takes long and leaves much behind."""
    _pauses.add(-1)
    try:
        yield
    finally:
        _pauses.add(1)

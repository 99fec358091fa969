"""Runs of a function in which nobody is to hear of its callbacks: those of rules, after the first one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Quiet(threading.local):
    depth = 0


_quiet = _Quiet()


def is_quiet() -> bool:
    """Tell whether callbacks are left out in this thread."""
    return _quiet.depth > 0


@contextmanager
def quiet() -> Iterator[None]:
    """Leave callbacks out."""
    _quiet.depth += 1
    try:
        yield
    finally:
        _quiet.depth -= 1

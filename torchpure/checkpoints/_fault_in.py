"""Memory that is about to be filled: its pages are made in one call of the system."""

import ctypes
import mmap
import sys
from collections.abc import Callable

_POPULATE_WRITE = 23  # of linux/mman.h, from Linux 5.14 on


def _madvise() -> Callable[[int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    found = getattr(ctypes.CDLL(None), "madvise", None)
    if found is not None:
        found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return found


_MADVISE = _madvise()


def fault_in(address: int, count: int) -> None:
    """Make the whole pages among these bytes; where the system cannot, they are made one by one when they are written.

    A page that a read of a file meets first costs an interruption of that read: a tenth of the time of a restore.
    """
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + count) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if _MADVISE is not None and length > 0:
        _MADVISE(first, length, _POPULATE_WRITE)

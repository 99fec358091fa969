"""Exceptions that a handler of signals raises while a program runs in C++."""

import ctypes
import threading
from functools import lru_cache
from typing import Any

STOPPED = -7  # the return code of a program that a signal has stopped


class _Raised(threading.local):
    error: BaseException | None = None  # raised by a handler, and not yet by the call of the program


_raised = _Raised()


def keep_raised(_number: int, given: Any) -> int:
    """Keep an exception for the call that is running; `given` holds the references that PyErr_Fetch returned."""
    kind, error, trace = (_take_reference(given[position]) for position in range(3))
    if not isinstance(error, BaseException):  # Python 3.11 makes the exception when it is caught
        error = kind() if error is None else kind(*error) if isinstance(error, tuple) else kind(error)
    _raised.error = error if trace is None else error.with_traceback(trace)
    return 0


def _take_reference(pointer: int | None) -> Any:
    if not pointer:
        return None
    held = ctypes.cast(pointer, ctypes.py_object).value
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(held))
    return held


def take_raised() -> BaseException:
    """Return the exception that stopped a program; a second signal may have come before it was kept."""
    error, _raised.error = _raised.error, None
    return KeyboardInterrupt() if error is None else error


@lru_cache(maxsize=1)
def python_table() -> Any:
    """Return the addresses of Python's functions, as `struct Python` of the programs lists them."""
    names = ("PyGILState_Ensure", "PyGILState_Release", "PyErr_CheckSignals", "PyErr_Fetch")
    pointers = [ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in names]
    return (ctypes.c_void_p * len(names))(*pointers)

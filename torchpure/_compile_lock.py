"""One lock around tracing and compiling, for all functions and threads.

torch keeps the state of its tracers in globals of its modules. If two threads trace at once, each may end in the
other's state: errors, or a crash of the process.
"""

import os
import threading
from typing import Any


class _CompileLock:
    """A reentrant lock. In a process made by `fork` it is free, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: Any) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # the process was forked inside, and the new lock is free
            return


compile_lock = _CompileLock()

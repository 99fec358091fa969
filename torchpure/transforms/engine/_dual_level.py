"""Forward derivatives in several threads at once.

torch keeps one forward level and one count of nested `jvp`s for the whole process: two threads that each open and close
the level lose each other's tangents. So the level is opened here, by the first of our threads that needs it, and closed
by the last; the count is kept above zero meanwhile, by which torch's own `jvp` leaves the level alone.
"""

import threading
from collections.abc import Callable
from typing import Any

from torch.compiler import is_dynamo_compiling

from torchpure._torch import eager_transforms, enter_dual_level, exit_dual_level, forward_ad

_torch: Any = eager_transforms  # a module whose counter changes
_enter_level: Any = enter_dual_level  # torch's functions around them look for its exporter, each time
_exit_level: Any = exit_dual_level
_lock = threading.Lock()
_users = 0


def forwards(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return `run`, one of torch's forward derivatives, as a function that several threads may be in at once."""

    def call(*args: Any) -> Any:
        if is_dynamo_compiling():
            return run(*args)
        joined = _join()
        try:
            return run(*args)
        finally:
            if joined:
                _leave()

    return call


def _join() -> bool:
    """Open the level, or join those who have; tell whether it is ours, and not one that the user opened."""
    global _users
    with _lock:
        joins = _users > 0 or forward_ad._current_level < 0
        if joins:
            _users += 1
            if _users == 1:
                forward_ad._current_level = _enter_level()
                _torch.JVP_NESTING += 1
        return joins


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _torch.JVP_NESTING -= 1
            _exit_level(level=forward_ad._current_level)
            forward_ad._current_level -= 1

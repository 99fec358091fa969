"""Forward derivatives in several threads at once.

torch keeps one dual level and one count of nested `jvp`s for the whole process. If two threads each open and close the
level, they lose each other's tangents. Here the first thread that needs the level opens it, and the last one closes it.
Meanwhile the count stays above zero, so that torch's own `jvp` does not touch the level.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure._torch import eager_transforms, enter_dual_level, exit_dual_level, forward_ad

from ._forward_rules import load_forward_rules
from ._zero_tangents import with_narrow_zeros

_torch: Any = eager_transforms  # the module, because its counter changes
_enter_level: Any = enter_dual_level  # torch's wrappers also check for torch.export, at each call
_exit_level: Any = exit_dual_level
_lock = threading.Lock()
_users = 0


def in_dual_level(run: Callable[..., Any], primals: Sequence[Tensor]) -> Callable[..., Any]:
    """Wrap `run`, a forward derivative of torch, so that several threads can be inside at once."""

    def call(*args: Any) -> Any:
        load_forward_rules()
        if is_dynamo_compiling():
            return run(*args)
        joined = _join()
        try:
            return with_narrow_zeros(run, primals, *args)
        finally:
            if joined:
                _leave()

    return call


def _join() -> bool:
    """Open the level, or join other threads in it; return False if the user has opened one."""
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

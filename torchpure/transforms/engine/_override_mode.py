"""The mode under which operations of torch are replaced by others: which ones, `_replaced` says."""

import threading
from collections.abc import Callable
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType
from typing import Any

from torch.overrides import TorchFunctionMode

from torchpure._torch import HigherOrderOperator

from ._levels import functorch, kinds

REPLACED: dict[Any, Callable[..., Any]] = {}  # wherever the mode is on
FORWARD: dict[Any, Callable[..., Any]] = {}  # only where a forward derivative is at work
MAPPED: dict[Any, Callable[..., Any]] = {}  # only where a vmap has failed
BEFORE: dict[Any, Callable[[Any, Any], tuple[Any, Any]]] = {}  # what autograd is called with instead, or an error
_found = REPLACED.get
_USUAL = frozenset({BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType})


def replaced_names() -> frozenset[str]:
    """List the names by which code calls the operations of `REPLACED`."""
    return frozenset(operation.__name__.removeprefix("linalg_") for operation in REPLACED)


@lru_cache(maxsize=1)
def _special() -> frozenset[Any]:
    """Return all that the mode does not leave as it is; the tables are filled by then."""
    return frozenset({*REPLACED, *FORWARD, *BEFORE})


class _Replacing(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._special = _special()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__class__ in _USUAL and func not in self._special:  # at once: every operation passes here
            return func(*args, **kwargs) if kwargs else func(*args)
        if func in FORWARD and functorch.TransformType.Jvp in kinds():
            func = FORWARD[func]
        func = _found(func, func)
        if func not in BEFORE and not isinstance(func, HigherOrderOperator):
            return func(*args, **kwargs) if kwargs else func(*args)
        if func in BEFORE:
            args, kwargs = BEFORE[func](args, kwargs or {})
        _here.active = False  # the mode is off in here: functions that this one runs put it on again
        try:
            return func(*args, **(kwargs or {}))
        finally:
            _here.active = True


class _Here(threading.local):
    active = False


_here = _Here()


class replacing:  # noqa: N801 a context manager
    """Replace operations in this thread, if no transform around does so already."""

    __slots__ = ("_mode",)

    def __enter__(self) -> None:
        self._mode = None if _here.active else _Replacing()
        if self._mode is not None:
            _here.active = True
            self._mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._mode is not None:
            _here.active = False
            self._mode.__exit__(*error)

"""The mode under which operations of torch are replaced by the rules of the registry."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._torch import (
    HigherOrderOperator,
    OpOverload,
    OpOverloadPacket,
    functorch,
    is_any_autocast_enabled,
    len_torch_function_stack,
    mode_at,
    pop_mode,
    push_mode,
)
from torchpure._types import P, T
from torchpure.transforms.calls import Call
from torchpure.transforms.constants import BY_KEYWORD, NUMBERS, with_numbers, with_tensors_as_numbers
from torchpure.transforms.context import current
from torchpure.transforms.engine import in_any_level, in_first_gradient, innermost, is_followed, level_kinds

from ._autocast import AUTOCAST, is_mapped_autocast
from ._registry import ALWAYS, FORWARD_MODE, IN_TRANSFORM, INTERCEPTED, THIRD_GRADIENT, TRIED

_USUAL = frozenset({BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType})
_RULED = frozenset({*ALWAYS, *FORWARD_MODE, *IN_TRANSFORM, *INTERCEPTED, *THIRD_GRADIENT})
# replaced under autocast, or where a keyword is given, such as `linear` and `+`
_RARELY = (frozenset(AUTOCAST) - NUMBERS.keys() | BY_KEYWORD) - _RULED
# replaced inside a level of torch's transforms alone
_IN_LEVELS = frozenset({*FORWARD_MODE, *IN_TRANSFORM, *THIRD_GRADIENT}) - {*ALWAYS, *INTERCEPTED, *NUMBERS}
_CALLS_BACK = {F.triplet_margin_with_distance_loss: "distance_function"}  # torch turns modes off before the call
_OVERRIDDEN = frozenset({*_RULED, *AUTOCAST, *NUMBERS, *_CALLS_BACK})
_ATEN = frozenset({OpOverload, OpOverloadPacket})
_KNOW_OUT: frozenset[Any] = frozenset({F.normalize})  # functions of Python code, whose rules take out=
_OF_ATEN = {  # operations of programs -> how Python code calls them: programs of `make_graph` and torch.export
    getattr(torch.ops.aten, operation.__name__): operation
    for operation in (*NUMBERS, *AUTOCAST, *INTERCEPTED, *FORWARD_MODE, *IN_TRANSFORM, *ALWAYS)
    if operation.__class__ in {BuiltinFunctionType, MethodDescriptorType}
    and hasattr(torch.ops.aten, operation.__name__)
}


def in_transform() -> bool:
    """Return whether a level of torch's transforms is open."""
    return not is_dynamo_compiling() and in_any_level()


def in_transform_rule(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs for an operation here: its IN_TRANSFORM rule inside a transform, else the operation."""
    return IN_TRANSFORM.get(operation, operation) if in_transform() else operation


def _is_differentiated_once(args: Any) -> bool:
    """Return whether an operation is differentiated once and no more: torch's kernels are right there, and faster."""
    return in_first_gradient() and not any(
        isinstance(leaf, Tensor) and innermost(leaf).requires_grad for leaf in tree.leaves(args)
    )


def _num_gradients(*given: Any) -> int:
    """Return how many gradients may be taken of an operation: one a level, and one by plain autograd."""
    levels = sum(kind == functorch.TransformType.Grad for kind in level_kinds())
    plain = any(isinstance(leaf, Tensor) and innermost(leaf).requires_grad for leaf in tree.leaves(given))
    return levels + plain


class OverrideMode(TorchFunctionMode):
    """Runs the rule of each operation that has one here, and every other operation as it is.

    A rule runs with the mode off: it may call its own operation.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or its rule."""
        # first: every operation passes here; torch.compile, which traces this, cannot guard on the tables
        if is_dynamo_compiling() or (func.__class__ in _USUAL and func not in _OVERRIDDEN):
            if not kwargs:
                return func(*args)
            return _run_with_out(func, args, kwargs) if kwargs.get("out") is not None else func(*args, **kwargs)
        if func in TRIED and (found := TRIED[func](func, args, kwargs)) is not None:
            return found
        if func in _RARELY and not kwargs and not is_any_autocast_enabled():
            return func(*args)
        if kwargs and kwargs.get("out") is not None and func not in _KNOW_OUT:
            return _run_with_out(func, args, kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "out" or value is not None} if kwargs else {}
        if func in _IN_LEVELS and not in_transform():
            return func(*args, **kwargs)
        operation = _OF_ATEN.get(getattr(func, "overloadpacket", func), func) if func.__class__ in _ATEN else func
        rule = _rule(operation, args, kwargs)
        func, operation = (func, operation) if rule is operation else (rule, rule)
        if operation not in INTERCEPTED and operation not in _CALLS_BACK and not isinstance(func, HigherOrderOperator):
            return func(*args, **kwargs)
        if operation in INTERCEPTED:
            args, kwargs = INTERCEPTED[operation](args, kwargs)
        if name := _CALLS_BACK.get(operation):
            kwargs = {**kwargs, name: overridden(kwargs.get(name) or F.pairwise_distance)}
        _thread.active = False  # functions of the user that run in here enter the mode again
        try:
            return func(*args, **kwargs)
        finally:
            _thread.active = True


def _run_with_out(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run an operation of torch that writes its result to `out`; no rule does.

    Raises:
        RuntimeError: a transform follows one of the tensors; torch's own errors have many forms.
    """
    try:
        return func(*args, **kwargs)
    except RuntimeError as error:
        leaves = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(map(is_followed, leaves)):
            raise
        raise RuntimeError(f"out= of {func.__name__} inside of a transform") from error


def _rule(operation: Any, args: Any, kwargs: Any) -> Any:
    """Return what runs for an operation here: a rule, or the operation itself."""
    if operation in NUMBERS:
        operation = with_tensors_as_numbers(operation, args, kwargs)
    if in_transform():
        if operation in AUTOCAST and is_mapped_autocast():
            return AUTOCAST[operation]
        if operation in FORWARD_MODE and functorch.TransformType.Jvp in level_kinds():
            operation = FORWARD_MODE[operation]
        elif operation in THIRD_GRADIENT and _num_gradients(args, kwargs) > 2:
            operation = THIRD_GRADIENT[operation]
        elif operation in IN_TRANSFORM and not _is_differentiated_once(args):
            operation = IN_TRANSFORM[operation]
    return ALWAYS.get(operation, operation)


class _Thread(threading.local):
    active = False  # whether the mode is on in this thread


_thread = _Thread()
_MODE = OverrideMode()  # it has no state: all threads share it
_num_modes: Any = len_torch_function_stack
_NOTHING = nullcontext()


class overriding:  # noqa: N801 a context manager
    """Turn the mode on in this thread, if it is off."""

    __slots__ = ("_was_active",)

    def __enter__(self) -> None:
        self._was_active = _thread.active
        if not self._was_active:
            _thread.active = True
            push_mode(_MODE)

    def __exit__(self, *error: Any) -> None:
        if not self._was_active:
            _leave()


def paused_overrides() -> AbstractContextManager[None]:
    """Turn the mode off in this thread, if it is the innermost function mode.

    A transform does so while it runs code of its own: each operation under the mode costs a microsecond.
    """
    return _NOTHING if is_dynamo_compiling() else _Paused()


class _Paused:
    __slots__ = ("_paused",)

    def __enter__(self) -> None:
        self._paused = _thread.active and _num_modes() > 0 and mode_at(_num_modes() - 1) is _MODE
        if self._paused:
            pop_mode()
            _thread.active = False

    def __exit__(self, *error: Any) -> None:
        if self._paused:
            push_mode(_MODE)
            _thread.active = True


def overridden(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `fn` under the mode."""
    if is_dynamo_compiling():
        return fn

    run_fn = with_numbers(fn)

    def run(*args: Any, **kwargs: Any) -> Any:
        if _thread.active:
            return run_fn(*args, **kwargs)
        _thread.active = True
        push_mode(_MODE)
        try:
            return run_fn(*args, **kwargs)
        finally:
            _leave()

    return run


def _leave() -> None:
    """Turn the mode off. Code of the user may have left other modes on, or have ended this one."""
    _thread.active = False
    others = []
    while _num_modes():
        mode = pop_mode()
        if mode is _MODE:
            break
        others.append(mode)
    for mode in reversed(others):
        push_mode(mode)


def as_member(fn: Callable[P, T]) -> Callable[P, T]:
    """Make a function whose operations are replaced as they are under a vmap.

    A compiled vmap may run members one after another. A member that fails must not end the others then either.
    """

    @wraps(fn, updated=())
    def member(*args: P.args, **kwargs: P.kwargs) -> T:
        before, current.in_member = current.in_member, True
        try:
            with overriding():
                return fn(*args, **kwargs)
        finally:
            current.in_member = before

    return member


def only_overrides() -> bool:
    """Return whether no function mode is on in this thread, except the mode of the overrides."""
    return _num_modes() == 0 or (_num_modes() == 1 and mode_at(0) is _MODE)


class UserCall(Call):
    """A call of a user's function, which runs under the mode each time, in backward passes too."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with overriding():
            return super().value(*tensors)

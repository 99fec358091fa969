"""The levels of torch's transforms: which are open, and in which levels a tensor is wrapped.

`torch.func.vmap`, `grad` and `jvp` each open one level. A tensor inside a level is a wrapper around a tensor of the
level below.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import _torch
from torchpure._torch import (
    disable_current_modes,
    forward_ad,
    get_proxy_mode,
    is_fwd_grad_enabled,
    temporarily_clear_interpreter_stack,
)

functorch: Any = _torch.functorch
_VMAP = functorch.TransformType.Vmap
# for reads of sizes, versions and storages: function modes are slow, and need not see them
without_function_modes: Any = _torch.DisableTorchFunction


@contextmanager
def without_transforms() -> Iterator[None]:
    """Leave all transforms and tracers for a while, to compute values that depend on no argument of theirs."""
    if is_dynamo_compiling() or (functorch.peek_interpreter_stack() is None and get_proxy_mode() is None):
        yield
        return
    with temporarily_clear_interpreter_stack(), disable_current_modes():
        yield


@contextmanager
def allow_requires_grad() -> Iterator[None]:
    """Allow `requires_grad_()` inside a transform: constructors of modules call it."""
    if is_dynamo_compiling():
        yield
        return
    allowed = functorch.get_inplace_requires_grad_allowed()
    functorch.set_inplace_requires_grad_allowed(True)
    try:
        yield
    finally:
        functorch.set_inplace_requires_grad_allowed(allowed)


def innermost(leaf: Tensor) -> Tensor:
    """Unwrap a tensor from all levels."""
    while functorch.is_functorch_wrapped_tensor(leaf):
        leaf = functorch.get_unwrapped(leaf)
    return leaf


def mapped_levels(leaf: Tensor) -> set[int]:
    """Return the levels of the vmaps that batch a tensor."""
    found = set()
    while functorch.is_functorch_wrapped_tensor(leaf):
        if functorch.is_batchedtensor(leaf):
            found.add(functorch.maybe_get_level(leaf))
        leaf = functorch.get_unwrapped(leaf)
    return found


def stale(leaf: Tensor) -> bool:
    """Return whether a tensor belongs to a level that is closed."""
    if not functorch.is_functorch_wrapped_tensor(leaf):
        return False
    own = functorch.maybe_get_level(leaf)
    return own < 0 or own > current_level()


def current_level() -> int:
    """Return the number of open levels."""
    return functorch.maybe_current_level() or 0


def level_kinds() -> list[Any]:
    """List the kinds of the open levels (Vmap, Grad, Jvp …), outermost first."""
    return [one.key() for one in functorch.get_interpreter_stack() or []]


def in_any_level() -> bool:
    """Return whether a level of torch's transforms is open: of torch.func, or of forward derivatives."""
    return functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def is_variable(leaf: Any) -> bool:
    """Return whether a leaf can be differentiated: a tensor of real or complex numbers."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def is_differentiated(leaf: Tensor) -> bool:
    """Return whether a derivative of any open level, or of plain autograd, is taken along a tensor."""
    if not is_variable(leaf):
        return False
    forward = forward_ad._current_level >= 0 and is_fwd_grad_enabled()
    while not leaf.requires_grad and not (forward and _has_tangent(leaf)):
        if not functorch.is_functorch_wrapped_tensor(leaf):
            return False
        leaf = functorch.get_unwrapped(leaf)
    return True


def is_followed(leaf: Tensor) -> bool:
    """Return whether a transform follows a tensor: it is in a level, or is differentiated."""
    return functorch.is_functorch_wrapped_tensor(leaf) or is_differentiated(leaf)


def _has_tangent(leaf: Tensor) -> bool:
    return not functorch.is_batchedtensor(leaf) and forward_ad.unpack_dual(leaf).tangent is not None

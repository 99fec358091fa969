"""One level of torch's transforms, opened and closed here: what torch.func does, without its checks.

The checks of torch.func cost as much as the work of a small network; ours have been made by then. A compiler cannot
follow these calls: while `torch.compile` traces, torch.func itself is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import _torch
from torchpure._torch import disable_current_modes, get_proxy_mode, temporarily_clear_interpreter_stack

functorch: Any = _torch.functorch
_VMAP = functorch.TransformType.Vmap
unseen: Any = _torch.DisableTorchFunction  # modes are for operations: looks at sizes, versions, memory pass by


@contextmanager
def apart() -> Iterator[None]:
    """Compute as if no transform and no tracer were at work: for what depends on nothing that they follow."""
    if is_dynamo_compiling() or (functorch.peek_interpreter_stack() is None and get_proxy_mode() is None):
        yield
        return
    with temporarily_clear_interpreter_stack(), disable_current_modes():
        yield


@contextmanager
def own_variables() -> Iterator[None]:
    """Let code inside of a transform make variables, as constructors of modules do."""
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
    """Return the tensor that transforms have wrapped, however often."""
    while functorch.is_functorch_wrapped_tensor(leaf):
        leaf = functorch.get_unwrapped(leaf)
    return leaf


def mapped_levels(leaf: Tensor) -> set[int]:
    """Return the levels of the vmaps whose members differ in a tensor."""
    found = set()
    while functorch.is_functorch_wrapped_tensor(leaf):
        if functorch.is_batchedtensor(leaf):
            found.add(functorch.maybe_get_level(leaf))
        leaf = functorch.get_unwrapped(leaf)
    return found


def stale(leaf: Tensor) -> bool:
    """Tell whether a tensor belongs to a level that has been closed."""
    if not functorch.is_functorch_wrapped_tensor(leaf):
        return False
    own = functorch.maybe_get_level(leaf)
    return own < 0 or own > level()


def level() -> int:
    """Return the number of levels that are open here."""
    return functorch.maybe_current_level() or 0


def kinds() -> list[Any]:
    """List the kinds of the levels that are open here."""
    return [level.key() for level in functorch.get_interpreter_stack() or []]


def is_variable(leaf: Any) -> bool:
    """Tell whether a derivative with respect to this leaf exists."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())

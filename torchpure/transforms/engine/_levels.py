"""One level of torch's transforms, opened and closed here: what torch.func does, without its checks.

The checks of torch.func cost as much as the work of a small network; ours have been made by then. A compiler cannot
follow these calls: while `torch.compile` traces, torch.func itself is used.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import _disable_current_modes

from ._open_level import _load_forward_rules

functorch: Any = torch._C._functorch
_VMAP = functorch.TransformType.Vmap
unseen: Any = torch._C.DisableTorchFunction  # modes are for operations: looks at sizes, versions, memory pass by
_OF_SCRIPTS = ("ignore", re.compile(r"`torch\.jit\.script` is "), Warning, None, 0)  # a filter of warnings


@contextmanager
def apart() -> Iterator[None]:
    """Compute as if no transform and no tracer were at work: for what depends on nothing that they follow."""
    if is_dynamo_compiling() or (functorch.peek_interpreter_stack() is None and get_proxy_mode() is None):
        yield
        return
    with temporarily_clear_interpreter_stack(), _disable_current_modes():
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


def load_forward_rules() -> None:
    """Load, once, the forward derivatives that torch has in Python, without its warning about scripts."""
    _load_forward_rules()


# so torch.compile calls it as it is while it traces, as `torch.compiler.assume_constant_result` would have it
load_forward_rules._dynamo_marked_constant = True  # pyrefly: ignore[missing-attribute]


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

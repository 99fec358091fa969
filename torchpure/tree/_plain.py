"""Whether values are plain tensors outside every transform and trace; only then in-place kernels are allowed."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import Parameter

from torchpure._torch import forward_ad, functorch, len_torch_dispatch_stack

_peek_transform = functorch.peek_interpreter_stack
_num_dispatch_modes = len_torch_dispatch_stack
_PLAIN_TYPES = {Tensor, Parameter}
_requires_grad = attrgetter("requires_grad")


def unwatched() -> bool:
    """Return whether no transform, no tracer and no forward derivative is active."""
    return (
        not is_dynamo_compiling()
        and _peek_transform() is None
        and forward_ad._current_level < 0
        and not _num_dispatch_modes()
    )


def untransformed() -> bool:
    """Return whether no transform is active; works in a compiled program too."""
    return _peek_transform() is None


# the effect of torch.compiler.assume_constant_result, without its import of the compiler, which takes a second:
# torch.compile calls the function while it traces, and guards on the active transforms
untransformed._dynamo_marked_constant = True  # pyrefly: ignore[missing-attribute]


def plain(leaves: Sequence[Any]) -> bool:
    """Return whether every leaf is a plain tensor that needs no gradient, outside every transform.

    Batched, dual and traced leaves are not inspected: the active transform or tracer alone decides.

    >>> plain([torch.zeros(2)]), plain([torch.zeros(2, requires_grad=True)]), plain([1.0])
    (True, False, False)
    """
    return (
        unwatched()
        and _PLAIN_TYPES.issuperset(map(type, leaves))
        and not (torch.is_grad_enabled() and any(map(_requires_grad, leaves)))
    )

"""Whether a value is an ordinary tensor that nothing watches: then, and only then, in-place kernels may serve it."""

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
_ORDINARY = {Tensor, Parameter}
_requires_grad = attrgetter("requires_grad")


def unwatched() -> bool:
    """Tell whether no transform, no tracer and no forward derivative is at work here."""
    return (
        not is_dynamo_compiling()
        and _peek_transform() is None
        and forward_ad._current_level < 0
        and not _num_dispatch_modes()
    )


def untransformed() -> bool:
    """Tell whether no transform is at work here, in a compiled program too."""
    return _peek_transform() is None


# what torch.compiler.assume_constant_result does, once it has imported the compiler, for a second: torch.compile calls
# the function where it traces, and guards on the transforms at work
untransformed._dynamo_marked_constant = True  # pyrefly: ignore[missing-attribute]


def plain(leaves: Sequence[Any]) -> bool:
    """Tell whether every leaf is an ordinary tensor whose gradient nobody asks for, outside every transform.

    A batched, dual or traced leaf is seen by the transform that is at work, never by its looks.

    >>> plain([torch.zeros(2)]), plain([torch.zeros(2, requires_grad=True)]), plain([1.0])
    (True, False, False)
    """
    return (
        unwatched()
        and _ORDINARY.issuperset(map(type, leaves))
        and not (torch.is_grad_enabled() and any(map(_requires_grad, leaves)))
    )

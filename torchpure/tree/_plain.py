"""Whether a value is an ordinary tensor that nothing watches: then, and only then, in-place kernels may serve it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling
from torch.nn import Parameter

_peek_transform = torch._C._functorch.peek_interpreter_stack
_num_dispatch_modes = torch._C._len_torch_dispatch_stack
_ORDINARY = (Tensor, Parameter)


def unwatched() -> bool:
    """Tell whether no transform, no tracer and no forward derivative is at work here."""
    return (
        not is_dynamo_compiling()
        and _peek_transform() is None
        and forward_ad._current_level < 0
        and not _num_dispatch_modes()
    )


def plain(leaves: Iterable[Any]) -> bool:
    """Tell whether every leaf is an ordinary tensor whose gradient nobody asks for, outside every transform.

    A batched, dual or traced leaf is seen by the transform that is at work, never by its looks.

    >>> plain([torch.zeros(2)]), plain([torch.zeros(2, requires_grad=True)]), plain([1.0])
    (True, False, False)
    """
    if not unwatched():
        return False
    watching = torch.is_grad_enabled()
    return all(type(leaf) in _ORDINARY and not (watching and leaf.requires_grad) for leaf in leaves)

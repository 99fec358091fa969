"""Checks of values that name the member of a batch which fails."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from torchpure import tree
from torchpure.errors import CheckError, TransformError

from ._describe import user_line
from ._levels import functorch

_SHOWN = 5


def check(condition: Tensor | bool, message: str) -> None:
    """Check that a condition holds everywhere; under vmap the members for which it does not are named.

    In a traced program the check is one of its operations, and the error has the message alone.

    Raises:
        CheckError: it does not hold.
        TransformError: the condition is not a bool or a tensor of bools.

    >>> from torchpure import vmap
    >>> def root(x):
    ...     check(x >= 0, "the root of a negative number")
    ...     return torch.sqrt(x)
    >>> vmap(root)(torch.tensor([1.0, -1.0, -2.0]))
    Traceback (most recent call last):
    torchpure.errors.CheckError: the root of a negative number: members 1, 2 of vmap...
    """
    if isinstance(condition, bool):
        if not condition:
            raise CheckError(message + user_line().rstrip(","))
        return
    if not isinstance(condition, Tensor) or condition.dtype != torch.bool:
        raise TransformError(
            f"check: the condition must be a bool or a tensor of bools, got {tree.describe(condition)}"
        )
    if is_dynamo_compiling():
        torch._assert_async(condition.all(), message)
        return
    value, dims = _unwrapped(condition)
    if get_proxy_mode() is not None or isinstance(value, FakeTensor):
        torch._assert_async(value.all(), message)
    elif not value.all():
        raise CheckError(message + _members(value, dims) + user_line().rstrip(","))


def _unwrapped(condition: Tensor) -> tuple[Tensor, int]:
    """Return the tensor without its transforms, and how many of its first dimensions are of vmaps, outermost first."""
    dims = []
    while functorch.is_functorch_wrapped_tensor(condition):
        if functorch.is_batchedtensor(condition):
            dims.append(functorch.maybe_get_bdim(condition))
        condition = functorch.get_unwrapped(condition)
    value = condition.detach()
    for done, dim in enumerate(reversed(dims)):
        value = value.movedim(dim + done, done)
    return value, len(dims)


def _members(value: Tensor, vmaps: int) -> str:
    if not vmaps:
        return ""
    failed = (
        (~value).flatten(vmaps).any(vmaps).nonzero().tolist() if value.ndim > vmaps else (~value).nonzero().tolist()
    )
    names = [str(index[0]) if vmaps == 1 else str(tuple(index)) for index in failed[:_SHOWN]]
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    return f": member{'s' * (len(failed) > 1)} {', '.join(names)}{more} of vmap"

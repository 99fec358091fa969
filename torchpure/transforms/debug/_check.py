"""`check`: an assertion on values, which names the members of a batch that fail."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import FakeTensor, assert_async, get_proxy_mode, temporarily_clear_interpreter_stack
from torchpure.errors import CheckError, TransformError
from torchpure.transforms.calls import CHECK, callback_p, is_tracing
from torchpure.transforms.context import Offset, active_masks, callbacks_suppressed, chunk_offset
from torchpure.transforms.engine import expose_all, functorch, innermost, user_line


def check(condition: Tensor | bool, message: str) -> None:
    """Check that a condition holds everywhere; under vmap the error names the members that fail.

    In a branch only the members that take it are checked, in a loop only those that are not done. In a traced program
    the check is an operation, which runs with the program.

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
        if condition or callbacks_suppressed():
            return
        if not active_masks() and not is_tracing():
            raise CheckError(message + user_line().rstrip(","))
        condition = torch.as_tensor(condition)
    if not isinstance(condition, Tensor) or condition.dtype != torch.bool:
        raise TransformError(
            f"check: the condition must be a bool or a tensor of bools, got {tree.describe(condition)}"
        )
    if is_dynamo_compiling():
        assert_async(condition.all(), message)
        return
    if callbacks_suppressed():  # the search for captured tensors must see these
        expose_all((condition, *active_masks()))
        return
    for members in active_masks():
        condition = condition | ~members
    with temporarily_clear_interpreter_stack():  # a result at an open level would be wrapped again
        value, starts = _unwrapped(condition)
        counted = [start for start in starts if isinstance(start, Tensor)]
        found = _Check(message, tuple(None if isinstance(start, Tensor) else start for start in starts))
        if get_proxy_mode() is None and not isinstance(value, FakeTensor):
            found(value, *counted)
        elif get_proxy_mode() is not None:
            callback_p(found._replace(line=user_line().rstrip(",")), (value, *counted), CHECK)


class _Check(NamedTuple):
    """Raises the error of a condition: now, or when the traced program runs."""

    message: str
    starts: tuple[int | None, ...]  # for each vmap the number of its first member; None: it is a tensor
    line: str | None = None  # of a traced check; None: find the line when the check fails

    def __call__(self, value: Tensor, *counted: Tensor) -> None:
        """Raise the error if the condition does not hold everywhere."""
        if not value.all():
            line = user_line().rstrip(",") if self.line is None else self.line
            remaining = iter(counted)
            starts = [int(next(remaining)) if start is None else start for start in self.starts]
            raise CheckError(self.message, _members(value, starts), line)


def _unwrapped(condition: Tensor) -> tuple[Tensor, list[Offset]]:
    """Return the innermost tensor, its batch dimensions first, and the number of the first member of each vmap."""
    dims, starts = [], []
    while functorch.is_functorch_wrapped_tensor(condition):
        if functorch.is_batchedtensor(condition):
            dims.append(functorch.maybe_get_bdim(condition))
            start = chunk_offset(functorch.maybe_get_level(condition))
            starts.append(innermost(start) if isinstance(start, Tensor) else start)
        condition = functorch.get_unwrapped(condition)
    value = condition.detach()
    for moved, dim in enumerate(reversed(dims)):
        value = value.movedim(dim + moved, moved)
    return value, starts[::-1]


def _members(value: Tensor, starts: Sequence[int]) -> list[tuple[int, ...]]:
    vmaps = len(starts)
    if not vmaps:
        return []
    failed = (~value).flatten(vmaps).any(vmaps) if value.ndim > vmaps else ~value
    return [tuple(i + start for i, start in zip(index, starts, strict=True)) for index in failed.nonzero().tolist()]

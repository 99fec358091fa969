"""What goes wrong under a vmap in tensors that all members share: whose doing it is, and torch's own put right."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._types import Tree

from ._levels import functorch, kinds, mapped_levels
from ._memory import with_members
from ._override_mode import MAPPED

T = TypeVar("T")

SHARED = "writes a mapped value into a tensor that all members share"
_BACKWARD = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})
_NO_ROOM = "doesn't match the broadcast shape"
_REFUSED = ("inplace arithmetic", "there exists a Tensor `other` in extra_args")


def may_be_shared(message: str) -> bool:
    """Tell whether an error of torch says that there is no room for all members."""
    return any(sign in message for sign in (_NO_ROOM, *_REFUSED))


def roomy(run: Callable[[Tree], T], init: Tree) -> T:
    """Run a loop from an initial carry; if a step writes what is mapped into it, from one with room for all members."""
    if is_dynamo_compiling():
        return run(init)
    try:
        return run(init)
    except RuntimeError as error:
        if functorch.TransformType.Vmap not in kinds() or not may_be_shared(str(error)):
            raise
    return run(tree.map(with_members, init))


class Shared(TorchFunctionMode):
    """Runs a function again in which there was no room for all members.

    An operation of the function that writes what is mapped into what is not is told apart, by an error that says so.
    Otherwise it was an operation of torch's own, in a backward pass of a backward pass: those known are replaced.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        try:
            return MAPPED.get(func, func)(*args, **(kwargs or {}))
        except RuntimeError as error:
            if func in _BACKWARD or not _is_write(str(error), args, kwargs):
                raise
            raise RuntimeError(f"{SHARED}: {error}") from error


def _is_write(message: str, args: Any, kwargs: Any) -> bool:
    if _NO_ROOM not in message:
        return any(sign in message for sign in _REFUSED)
    own, *given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return any(not mapped_levels(leaf) <= mapped_levels(own) for leaf in given)

"""What goes wrong under a vmap in tensors that all members share: whose doing it is, and torch's own put right."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree

from ._levels import functorch, kinds, mapped_levels
from ._memory import with_members

T = TypeVar("T")

SHARED = "writes a mapped value into a tensor that all members share"
_NO_ROOM = "doesn't match the broadcast shape"
_REFUSED = ("inplace arithmetic", "there exists a Tensor `other` in extra_args")


def may_be_shared(message: str) -> bool:
    """Tell whether an error of torch says that there is no room for all members."""
    return any(sign in message for sign in (_NO_ROOM, *_REFUSED))


def writes_shared(message: str, args: Any, kwargs: Any) -> bool:
    """Return whether the operation that raised writes a mapped value into a tensor that all members share."""
    if _NO_ROOM not in message:
        return any(sign in message for sign in _REFUSED)
    own, *given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return any(not mapped_levels(leaf) <= mapped_levels(own) for leaf in given)


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

"""In-place writes of a batched value into a tensor without a batch dimension, which vmap cannot do."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree

from ._levels import functorch, level_kinds, mapped_levels
from ._memory import with_all_batch_dims

T = TypeVar("T")

SHARED_WRITE = "writes a mapped value into a tensor that all members share"
_NO_ROOM = "doesn't match the broadcast shape"
_REFUSED = ("inplace arithmetic", "there exists a Tensor `other` in extra_args")
_IN_BACKWARD = "accessing `data` under vmap"  # torch 2.15 says so in the second backward pass of a norm


def is_shared_write(message: str) -> bool:
    """Return whether an error of torch may come from such a write."""
    return any(sign in message for sign in (_NO_ROOM, *_REFUSED, _IN_BACKWARD))


def writes_shared(message: str, args: Any, kwargs: Any) -> bool:
    """Return whether the operation that raised this error writes a batched value into its unbatched first tensor."""
    if _NO_ROOM not in message:
        return any(sign in message for sign in _REFUSED)
    target, *given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return any(not mapped_levels(leaf) <= mapped_levels(target) for leaf in given)


def retry_with_batched_carry(run: Callable[[Tree], T], init: Tree) -> T:
    """Run a loop; if a step writes a batched value into the carry, run it again with a batched initial carry."""
    if is_dynamo_compiling():
        return run(init)
    try:
        return run(init)
    except RuntimeError as error:
        if functorch.TransformType.Vmap not in level_kinds() or not is_shared_write(str(error)):
            raise
    return run(tree.map(with_all_batch_dims, init))

"""What a vmap needs to know of its members: tensors that they share, and programs that must run one by one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import functorch

_functorch: Any = functorch


def member_flag(witnesses: Any) -> Tensor | None:
    """Return a boolean of shape () that differs, as far as torch can tell, between the members of every vmap at work.

    The vmaps are those that batch one of the witnesses; None when there are none.
    """
    levels: dict[int, Tensor] = {}
    for leaf in () if is_dynamo_compiling() else tree.leaves(witnesses):
        while isinstance(leaf, Tensor) and _functorch.is_functorch_wrapped_tensor(leaf):
            if _functorch.is_batchedtensor(leaf):
                levels.setdefault(_functorch.maybe_get_level(leaf), leaf)
            leaf = _functorch.get_unwrapped(leaf)
    flag = None
    for leaf in levels.values():
        one = leaf.detach().reshape(-1)[:1].isnan().any()
        flag = one if flag is None else flag | one
    return flag


def own(flag: Tensor | None, tensor: Tensor) -> Tensor:
    """Give each member its own copy: to change in place what they share is an error in torch."""
    return tensor if flag is None or tensor.is_meta else torch.where(flag.to(tensor.device), tensor, tensor)


def for_each_member(fn: Callable[[Tensor], Any], key: Tensor) -> Any:
    """Return `fn(key)`; under vmap, where `fn` does what torch cannot batch, by running it member by member."""
    flag = member_flag(key)
    if flag is None:
        return fn(key)
    try:
        return fn(key)
    except RuntimeError:  # such as a branch on the values that were drawn
        box = _Box()
        leaves = _OneByOne.apply(fn, box, key)
        return tree.unflatten(box.structure, list(leaves))


class _Box:
    """Where a function that may only return tensors leaves the structure of its result."""

    structure: Any = None


class _OneByOne(torch.autograd.Function):
    """A function of a key that knows no batches: a batch of keys is taken apart."""

    @staticmethod
    def forward(fn: Callable[[Tensor], Any], box: _Box, key: Tensor) -> tuple[Tensor, ...]:
        leaves, box.structure = tree.flatten(fn(key))
        return tuple(leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: no gradient flows to a key."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        fn, box, keys = args
        members = [_OneByOne.apply(fn, box, key) for key in keys.movedim(in_dims[2], 0)]
        return tuple(map(torch.stack, zip(*members, strict=True))), (0,) * len(members[0])

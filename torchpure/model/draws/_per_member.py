"""Support for vmap: copies of shared tensors per member, and functions that run member by member."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import functorch

_functorch: Any = functorch


def member_flag(values: Any) -> Tensor | None:
    """Return a boolean of shape () that is batched by every vmap that batches one of the values; None if none does.

    The boolean's value has no meaning: torch only has to treat it as different for each member.
    """
    levels: dict[int, Tensor] = {}
    for leaf in () if is_dynamo_compiling() else tree.leaves(values):
        while isinstance(leaf, Tensor) and _functorch.is_functorch_wrapped_tensor(leaf):
            if _functorch.is_batchedtensor(leaf):
                levels.setdefault(_functorch.maybe_get_level(leaf), leaf)
            leaf = _functorch.get_unwrapped(leaf)
    flag = None
    for leaf in levels.values():
        level_flag = leaf.detach().reshape(-1)[:1].isnan().any()
        flag = level_flag if flag is None else flag | level_flag
    return flag


def per_member(flag: Tensor | None, tensor: Tensor) -> Tensor:
    """Return a copy of the tensor per member, because torch cannot write in place into a shared tensor."""
    return tensor if flag is None or tensor.is_meta else torch.where(flag.to(tensor.device), tensor, tensor)


def for_each_member(fn: Callable[[Tensor], Any], key: Tensor) -> Any:
    """Return `fn(key)`; under vmap, if torch cannot batch `fn`, run it member by member."""
    flag = member_flag(key)
    if flag is None:
        return fn(key)
    try:
        return fn(key)
    except RuntimeError:  # such as a branch on drawn values
        box = _StructureBox()
        leaves = _MemberLoop.apply(fn, box, key)
        return tree.unflatten(box.structure, list(leaves))


class _StructureBox:
    """Holds the structure of a result: an autograd.Function can only return tensors."""

    structure: Any = None


class _MemberLoop(torch.autograd.Function):
    """Call a function of one key; under vmap, call it once per key and stack the results."""

    @staticmethod
    def forward(fn: Callable[[Tensor], Any], box: _StructureBox, key: Tensor) -> tuple[Tensor, ...]:
        leaves, box.structure = tree.flatten(fn(key))
        return tuple(leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing: a key has no gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        fn, box, keys = args
        members = [_MemberLoop.apply(fn, box, key) for key in keys.movedim(in_dims[2], 0)]
        return tuple(map(torch.stack, zip(*members, strict=True))), (0,) * len(members[0])

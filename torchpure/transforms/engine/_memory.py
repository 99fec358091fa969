"""Memory of tensors under transforms: zeros without memory, shared memory, room for all members of a vmap."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure._torch import temporarily_clear_interpreter_stack

from ._levels import _VMAP, functorch, innermost, mapped_levels, unseen


def mapped_as(primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Sequence[Tensor]:
    """Give tangents room for all members that their primals have: what is written into a copy of both may differ."""
    if functorch.peek_interpreter_stack() is None:
        return tangents
    return [
        tangent if mapped_levels(primal) <= mapped_levels(tangent) else torch.zeros_like(primal) + tangent
        for primal, tangent in zip(primals, tangents, strict=True)
    ]


def with_room(leaf: Any, others: Sequence[Any]) -> Any:
    """Give a tensor room for all members that others have; where there are none, there is nothing to have room for."""
    if isinstance(leaf, Tensor):
        for other in others:
            if not isinstance(other, Tensor) or mapped_levels(other) <= mapped_levels(leaf):
                continue
            if innermost(other).numel():
                leaf = leaf + torch.zeros_like(other.reshape(-1)[:1].sum(), dtype=leaf.dtype)
    return leaf


def with_members(leaf: Any) -> Any:
    """Give a tensor of real or complex numbers room for the members of every vmap around."""
    if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
        return leaf
    stack = functorch.get_interpreter_stack() or []
    sizes = {one.level(): functorch.CVmapInterpreterPtr(one).batchSize() for one in stack if one.key() == _VMAP}
    with temporarily_clear_interpreter_stack():  # levels above a vmap would wrap its zeros
        zeros = [torch.zeros(size, dtype=leaf.dtype, device=leaf.device) for size in sizes.values()]
    members = [functorch.add_batch_dim(zero, 0, at) for zero, at in zip(zeros, sizes, strict=True)]
    return with_room(leaf, members)


def whole(leaf: Tensor) -> Tensor:
    """Return ordinary zeros for those without memory that torch's forward derivatives hand out."""
    return torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device) if leaf._is_zerotensor() else leaf


def dense(leaf: Tensor) -> Tensor:
    """Return a tensor that torch can lay a tangent out as, when it makes a dual of both."""
    return with_memory(leaf).contiguous()


def with_memory(leaf: Tensor) -> Tensor:
    """Return a tensor each of whose elements, over all members, has memory of its own: zeros may have none."""
    if is_dynamo_compiling():
        return leaf
    with unseen():
        base = innermost(leaf)
        sizes, strides, none = base.shape, base.stride(), base._is_zerotensor()
    shared = none or (0 in strides and any(size > 1 and not step for size, step in zip(sizes, strides, strict=True)))
    return leaf.clone(memory_format=torch.contiguous_format) if shared else leaf


def fresh(outputs: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return outputs that share no memory with inputs or with each other, so that they may be changed in place."""
    place = id if is_dynamo_compiling() else _memory
    with unseen():
        places, taken = [place(leaf) for leaf in outputs], {place(leaf) for leaf in inputs}
    result = []
    for leaf, at in zip(outputs, places, strict=True):
        result.append(leaf.clone() if at in taken and isinstance(leaf, Tensor) else leaf)
        if at is not None:
            taken.add(at)
    return tuple(result)


def _memory(leaf: Any) -> int | None:
    """Tell the memory of a tensor from that of others; None where there is none to change."""
    base = innermost(leaf) if isinstance(leaf, Tensor) else None
    if base is None or base.layout is not torch.strided or base._is_zerotensor():
        return None
    return base.untyped_storage()._cdata

"""Memory of tensors under transforms: zeros without memory, aliased results, missing batch dimensions.

A tensor that all members of a vmap share has no batch dimension. A batched value cannot be written into it in place.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure._torch import temporarily_clear_interpreter_stack

from ._levels import _VMAP, functorch, innermost, mapped_levels, without_function_modes


def batched_like(primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Sequence[Tensor]:
    """Give tangents the batch dimensions of their primals, so that an in-place write reaches both."""
    if functorch.peek_interpreter_stack() is None:
        return tangents
    return [
        tangent if mapped_levels(primal) <= mapped_levels(tangent) else torch.zeros_like(primal) + tangent
        for primal, tangent in zip(primals, tangents, strict=True)
    ]


def with_batch_dims_of(leaf: Any, others: Sequence[Any]) -> Any:
    """Give a tensor the batch dimensions of others; empty tensors do not count."""
    if isinstance(leaf, Tensor):
        for other in others:
            if not isinstance(other, Tensor) or mapped_levels(other) <= mapped_levels(leaf):
                continue
            if innermost(other).numel():
                leaf = leaf + torch.zeros_like(other.reshape(-1)[:1].sum(), dtype=leaf.dtype)
    return leaf


def with_all_batch_dims(leaf: Any) -> Any:
    """Give a tensor of real or complex numbers the batch dimension of every open vmap."""
    if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
        return leaf
    stack = functorch.get_interpreter_stack() or []
    sizes = {one.level(): functorch.CVmapInterpreterPtr(one).batchSize() for one in stack if one.key() == _VMAP}
    with temporarily_clear_interpreter_stack():  # else the levels above a vmap would wrap its zeros
        zeros = [torch.zeros(size, dtype=leaf.dtype, device=leaf.device) for size in sizes.values()]
    members = [functorch.add_batch_dim(zero, 0, at) for zero, at in zip(zeros, sizes, strict=True)]
    return with_batch_dims_of(leaf, members)


def without_zerotensors(leaf: Tensor) -> Tensor:
    """Replace a zero tensor without memory, which torch's forward derivatives return, by ordinary zeros."""
    return torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device) if leaf._is_zerotensor() else leaf


def dense(leaf: Tensor) -> Tensor:
    """Return a contiguous tensor with memory: torch lays out a tangent as its primal."""
    return materialized(leaf).contiguous()


def materialized(leaf: Tensor) -> Tensor:
    """Return a tensor whose elements, over all members, each have memory: clone zero tensors and expanded ones."""
    if is_dynamo_compiling():
        return leaf
    with without_function_modes():
        base = innermost(leaf)
        sizes, strides, none = base.shape, base.stride(), base._is_zerotensor()
    lacks = none or (0 in strides and any(size > 1 and not step for size, step in zip(sizes, strides, strict=True)))
    return leaf.clone(memory_format=torch.contiguous_format) if lacks else leaf


def unaliased(outputs: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return outputs that share no memory with the inputs or with each other, so that they can be changed in place."""
    key_of = id if is_dynamo_compiling() else _storage_key
    with without_function_modes():
        keys, taken = [key_of(leaf) for leaf in outputs], {key_of(leaf) for leaf in inputs}
    result = []
    for leaf, key in zip(outputs, keys, strict=True):
        result.append(leaf.clone() if key in taken and isinstance(leaf, Tensor) else leaf)
        if key is not None:
            taken.add(key)
    return tuple(result)


def _storage_key(leaf: Any) -> int | None:
    """Return a number for the storage of a tensor; None if there is no memory to change."""
    base = innermost(leaf) if isinstance(leaf, Tensor) else None
    if base is None or base.layout is not torch.strided or base._is_zerotensor():
        return None
    return base.untyped_storage()._cdata

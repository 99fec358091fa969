"""Batching of flat bodies: flags say which inputs and which results have a batch dimension (as for jaxprs)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import disable_proxy_modes_tracing, lazy_load_decompositions
from torchpure.transforms.calls import FlatFn
from torchpure.transforms.context import suppress_callbacks
from torchpure.transforms.engine import TensorIndexing, functorch, without_zerotensors

BatchedFlags = list[bool]


def batch_body(
    fn: FlatFn, size: int, in_batched: Sequence[bool], out_batched: Sequence[bool] | None = None
) -> Callable[..., Any]:
    """Return `fn` on inputs whose members are at dimension 0, where `in_batched` is True.

    The results have members at dimension 0 where `out_batched` is True. Without `out_batched`, the function returns
    flags only: which results depend on the member.
    """

    def run(*inputs: Tensor) -> Any:
        lazy_load_decompositions()
        opened = functorch.vmap_increment_nesting(size, "error")
        try:
            wrapped = [
                functorch.add_batch_dim(x, 0, opened) if flag else x for x, flag in zip(inputs, in_batched, strict=True)
            ]
            results = fn(*wrapped)
            results = results if isinstance(results, tuple | list) else (results,)
            if out_batched is None:
                return [functorch.is_batchedtensor(x) and functorch.maybe_get_level(x) == opened for x in results]
            return tuple(
                without_zerotensors(functorch.remove_batch_dim(x, opened, size, 0)) if flag else x
                for x, flag in zip(results, out_batched, strict=True)
            )
        finally:
            functorch.vmap_decrement_nesting()

    return run


def find_out_batched(fn: FlatFn, size: int, in_batched: Sequence[bool], samples: Sequence[Tensor]) -> BatchedFlags:
    """Return which results of `fn` depend on the member; `samples` are inputs with all members."""
    # torch may have disabled the indexing mode of the tracer here
    with torch.no_grad(), suppress_callbacks(), disable_proxy_modes_tracing(), TensorIndexing():
        return batch_body(fn, size, in_batched)(*samples)


def batched_fixpoint(
    fn: FlatFn, size: int, init_flags: BatchedFlags, const_flags: BatchedFlags, samples: Sequence[Tensor]
) -> tuple[BatchedFlags, BatchedFlags]:
    """Find which parts of a carry depend on the member after any number of steps: a fixpoint of flags.

    Returns:
        The flags of the carry, and those of all results of `fn`.
    """
    carry_flags = init_flags
    while True:
        inputs = [
            expand_members(x, None, size) if now and not before else x
            for x, now, before in zip(samples, carry_flags, init_flags, strict=False)
        ]
        out_batched = find_out_batched(fn, size, [*carry_flags, *const_flags], [*inputs, *samples[len(carry_flags) :]])
        next_flags = [one or two for one, two in zip(carry_flags, out_batched, strict=False)]
        if next_flags == carry_flags:
            return carry_flags, out_batched
        carry_flags = next_flags


def expand_members(leaf: Tensor, dim: int | None, size: int, position: int = 0) -> Tensor:
    """Move the members of a tensor to a dimension; expand a tensor that is the same for all members."""
    if dim is not None:
        return leaf.movedim(dim, position)
    return leaf.unsqueeze(position).expand(*leaf.shape[:position], size, *leaf.shape[position:])

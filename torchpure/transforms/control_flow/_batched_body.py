"""Batching of flat bodies: flags say which inputs and which results have a batch dimension (as for jaxprs).

A rule runs a body once to learn its flags, and then makes an operation of it. A loop in that body would do both again,
so the innermost of n nested loops would run 2^n times. Therefore, while an outer rule only learns flags, the rules of
inner loops return the results of their own first run (`is_sample_enough`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._torch import FakeTensor, disable_proxy_modes_tracing, lazy_load_decompositions
from torchpure.transforms.calls import FlatFn
from torchpure.transforms.context import current, suppress_callbacks
from torchpure.transforms.engine import TensorIndexing, functorch, innermost, without_zerotensors

BatchedFlags = list[bool]


class Sampled(NamedTuple):
    """One run of a body on all members: its results, and which of them have members, at dimension 0."""

    flags: BatchedFlags
    results: list[Tensor]
    level: int  # of the members, while it ran


def batch_body(
    fn: FlatFn, size: int, in_batched: Sequence[bool], out_batched: Sequence[bool]
) -> Callable[..., tuple[Tensor, ...]]:
    """Return `fn` on inputs whose members are at dimension 0, where `in_batched` is True.

    The results have members at dimension 0 where `out_batched` is True.
    """

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with _members(size) as level:
            return tuple(_unwrapped(_results(fn, inputs, in_batched, level), out_batched, level, size))

    return run


def batch_all_outputs(fn: FlatFn, size: int, in_batched: Sequence[bool]) -> Callable[..., tuple[Tensor, ...]]:
    """Return `fn` as `batch_body` does, so that all results have members at dimension 0."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with _members(size) as level:
            results = _results(fn, inputs, in_batched, level)
            return tuple(_unwrapped(results, [True] * len(results), level, size))

    return run


def sample(fn: FlatFn, size: int, in_batched: Sequence[bool], samples: Sequence[Tensor]) -> Sampled:
    """Run `fn` on `samples`, inputs with all members, to learn which results depend on the member."""
    # torch may have disabled the indexing mode of the tracer here
    with torch.no_grad(), suppress_callbacks(), disable_proxy_modes_tracing(), TensorIndexing():
        # what fails may only have met results of an inner loop that lack the members of later steps
        with suppress(Exception):
            return _sample(fn, size, in_batched, samples, short=True)
        return _sample(fn, size, in_batched, samples, short=False)


def _sample(fn: FlatFn, size: int, in_batched: Sequence[bool], samples: Sequence[Tensor], *, short: bool) -> Sampled:
    before = current.sampled_level, current.finds_captures
    with _members(size) as level:
        current.sampled_level, current.finds_captures = level if short else None, False
        try:
            results = _results(fn, samples, in_batched, level)
        finally:
            current.sampled_level, current.finds_captures = before
        flags = [functorch.is_batchedtensor(x) and functorch.maybe_get_level(x) == level for x in results]
        return Sampled(flags, _unwrapped(results, flags, level, size), level)


def is_sample_enough(sampled: Sampled, inputs: Sequence[Tensor]) -> bool:
    """Return whether a rule may return sampled results in place of those of its operation.

    Only a tracer's tensors qualify: a program may read the numbers of others, and choose a branch by them.
    """
    return (
        current.sampled_level == sampled.level
        and any(isinstance(innermost(leaf), FakeTensor) for leaf in inputs)
        and all(isinstance(innermost(leaf), FakeTensor) for leaf in sampled.results)
    )


@contextmanager
def _members(size: int) -> Iterator[int]:
    """Open a level of vmap."""
    lazy_load_decompositions()
    level = functorch.vmap_increment_nesting(size, "error")
    try:
        yield level
    finally:
        functorch.vmap_decrement_nesting()


def _results(fn: FlatFn, inputs: Sequence[Tensor], in_batched: Sequence[bool], level: int) -> Sequence[Tensor]:
    wrapped = [functorch.add_batch_dim(x, 0, level) if flag else x for x, flag in zip(inputs, in_batched, strict=True)]
    results: Any = fn(*wrapped)
    return results if isinstance(results, tuple | list) else (results,)


def _unwrapped(results: Sequence[Tensor], flags: Sequence[bool], level: int, size: int) -> list[Tensor]:
    return [
        without_zerotensors(functorch.remove_batch_dim(x, level, size, 0)) if flag else x
        for x, flag in zip(results, flags, strict=True)
    ]


def batched_fixpoint(
    fn: FlatFn, size: int, init_flags: BatchedFlags, const_flags: BatchedFlags, samples: Sequence[Tensor]
) -> tuple[BatchedFlags, Sampled]:
    """Find which parts of a carry depend on the member after any number of steps: a fixpoint of flags.

    Returns:
        The flags of the carry, and the last run of `fn`.
    """
    carry_flags = init_flags
    while True:
        carry = expand_where(samples[: len(carry_flags)], init_flags, carry_flags, size)
        sampled = sample(fn, size, [*carry_flags, *const_flags], [*carry, *samples[len(carry_flags) :]])
        next_flags = [one or two for one, two in zip(carry_flags, sampled.flags, strict=False)]
        if next_flags == carry_flags:
            return carry_flags, sampled
        carry_flags = next_flags


def expand_where(leaves: Sequence[Tensor], before: Sequence[bool], now: Sequence[bool], size: int) -> list[Tensor]:
    """Expand the tensors that had no members before, and have them now."""
    return [
        expand_members(leaf, None, size) if new and not old else leaf
        for leaf, old, new in zip(leaves, before, now, strict=True)
    ]


def expand_members(leaf: Tensor, dim: int | None, size: int, position: int = 0) -> Tensor:
    """Move the members of a tensor to a dimension; expand a tensor that is the same for all members."""
    if dim is not None:
        return leaf.movedim(dim, position)
    return leaf.unsqueeze(position).expand(*leaf.shape[:position], size, *leaf.shape[position:])

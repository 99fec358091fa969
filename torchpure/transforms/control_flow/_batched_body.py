"""Functions of tensors, mapped over members: some of what goes in and comes out has them, and the rest has not."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import disable_proxy_modes_tracing, lazy_load_decompositions
from torchpure.transforms.context import quiet
from torchpure.transforms.engine import TensorIndexing, functorch, without_zerotensors

Flat = Callable[..., Sequence[Tensor]]
Marks = list[bool]


def mapped(fn: Flat, size: int, marks: Sequence[bool], out: Sequence[bool] | None = None) -> Callable[..., Any]:
    """Return `fn` of tensors that have members at dimension 0 where marked.

    The results have them where `out` says so. Without it the marks alone are returned: what depends on the member.
    """

    def run(*given: Tensor) -> Any:
        lazy_load_decompositions()
        opened = functorch.vmap_increment_nesting(size, "error")
        try:
            inner = [functorch.add_batch_dim(x, 0, opened) if mark else x for x, mark in zip(given, marks, strict=True)]
            results = fn(*inner)
            results = results if isinstance(results, tuple | list) else (results,)
            if out is None:
                return [functorch.is_batchedtensor(x) and functorch.maybe_get_level(x) == opened for x in results]
            return tuple(
                without_zerotensors(functorch.remove_batch_dim(x, opened, size, 0)) if mark else x
                for x, mark in zip(results, out, strict=True)
            )
        finally:
            functorch.vmap_decrement_nesting()

    return run


def marks_of(fn: Flat, size: int, marks: Sequence[bool], samples: Sequence[Tensor]) -> Marks:
    """Tell which results of `fn` depend on the member, if what is marked does; samples are of all members."""
    with torch.no_grad(), quiet(), disable_proxy_modes_tracing(), TensorIndexing():  # the tracer's may be off in here
        return mapped(fn, size, marks)(*samples)


def settled(fn: Flat, size: int, first: Marks, rest: Marks, samples: Sequence[Tensor]) -> tuple[Marks, Marks]:
    """Find which parts of a carry come to depend on the member, from those that do at first; return all marks then."""
    carry = first
    while True:
        given = [
            spread(x, None, size) if now and not before else x
            for x, now, before in zip(samples, carry, first, strict=False)
        ]
        out = marks_of(fn, size, [*carry, *rest], [*given, *samples[len(carry) :]])
        more = [one or two for one, two in zip(carry, out, strict=False)]
        if more == carry:
            return carry, out
        carry = more


def spread(leaf: Tensor, dim: int | None, size: int, at: int = 0) -> Tensor:
    """Return a tensor with its members at a dimension; one that is the same for all is expanded."""
    if dim is not None:
        return leaf.movedim(dim, at)
    return leaf.unsqueeze(at).expand(*leaf.shape[:at], size, *leaf.shape[at:])

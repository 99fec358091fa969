"""Wrappers that pass the parameters to an optimizer in another layout."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, T, Updates
from torchpure.optim.core import Optimizer, check_given, check_optimizer, is_differentiable, join_complex, split_complex


def flatten(inner: Optimizer[T]) -> Optimizer[T]:
    """Pass all leaves to an optimizer as one vector.

    Then many small leaves need fewer kernels, and norms are over all leaves. Leaves that are not differentiable are
    left out. A gradient that is None counts as zero.

    >>> from torchpure import optim
    >>> params = {"w": torch.ones(2), "b": torch.ones(())}
    >>> flatten(optim.adam(0.1)).init(params).mean.shape
    torch.Size([3])
    """
    check_optimizer("flatten", inner)

    def to_vector(params: Params) -> Tensor:
        return tree.ravel([leaf for leaf in tree.leaves(params) if is_differentiable(leaf)])[0]

    def update(grads: Grads, state: Any, params: Params, **extra: Any) -> tuple[Updates, Any]:
        check_given("flatten", params)
        leaves, structure = tree.flatten(params)
        given = tree.align(structure, params, grads, "flatten")
        differentiable = [leaf for leaf in leaves if is_differentiable(leaf)]
        flat_params, unravel = tree.ravel(differentiable)
        grad_leaves = [g for g, leaf in zip(given, leaves, strict=True) if is_differentiable(leaf)]
        gradient = tree.ravel(
            [torch.zeros_like(p) if g is None else g for g, p in zip(grad_leaves, differentiable, strict=True)]
        )[0]
        flat_updates, state = inner.update(gradient, state, flat_params, **extra)
        pieces = iter(unravel(flat_updates))
        updates = [next(pieces) if is_differentiable(leaf) else None for leaf in leaves]
        updates = [None if g is None else u for g, u in zip(given, updates, strict=True)]
        return tree.unflatten(structure, updates), state

    return Optimizer(lambda params: inner.init(to_vector(params)), update, extra=inner.extra)


class SplitRealAndImaginaryState(NamedTuple):
    """State of `split_real_and_imaginary`."""

    inner_state: Any


def split_real_and_imaginary(inner: Optimizer[Any]) -> Optimizer[SplitRealAndImaginaryState]:
    """Pass each complex leaf to an optimizer as two real leaves.

    The optimizers of this library already treat both parts of an entry as real numbers. Use this for other optimizers,
    and for norms of each part.

    >>> from torchpure import optim
    >>> params = torch.tensor([1 + 2j])
    >>> opt = split_real_and_imaginary(optim.clip(0.5))
    >>> opt.update(params, opt.init(params), params)[0]
    tensor([0.5000+0.5000j])
    """
    check_optimizer("split_real_and_imaginary", inner)

    def init(params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.init(split_complex(params)))

    def update(
        grads: Grads, state: SplitRealAndImaginaryState, params: Params, **extra: Any
    ) -> tuple[Updates, SplitRealAndImaginaryState]:
        grads_of_parts, parts = split_complex(grads), split_complex(params)
        updates, inner_state = inner.update(grads_of_parts, state.inner_state, parts, **extra)
        return join_complex(grads, updates), SplitRealAndImaginaryState(inner_state)

    return Optimizer(init, update, extra=inner.extra)

"""Wrappers that show an optimizer the parameters in another layout."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, T, Tree, Updates
from torchpure.optim.core import Optimizer, has_gradient


def flatten(inner: Optimizer[T]) -> Optimizer[T]:
    """Show an optimizer all leaves as one vector: fewer kernels for many small leaves, norms over all of them.

    Leaves that cannot have a gradient are left out; those without one this time count as zero gradients.

    >>> from torchpure import optim
    >>> params = {"w": torch.ones(2), "b": torch.ones(())}
    >>> flatten(optim.adam(0.1)).init(params).mean.shape
    torch.Size([3])
    """

    def vector(params: Params) -> Tensor:
        return tree.ravel([leaf for leaf in tree.leaves(params) if has_gradient(leaf)])[0]

    def update(grads: Grads, state: Any, params: Params, **extra: Any) -> tuple[Updates, Any]:
        leaves, structure = tree.flatten(params)
        given = tree.align(structure, params, grads, "flatten")
        moving = [leaf for leaf in leaves if has_gradient(leaf)]
        whole, unravel = tree.ravel(moving)
        held = [g for g, leaf in zip(given, leaves, strict=True) if has_gradient(leaf)]
        gradient = tree.ravel([torch.zeros_like(p) if g is None else g for g, p in zip(held, moving, strict=True)])[0]
        moved, state = inner.update(gradient, state, whole, **extra)
        parts = iter(unravel(moved))
        updates = [next(parts) if has_gradient(leaf) else None for leaf in leaves]
        updates = [None if g is None else u for g, u in zip(given, updates, strict=True)]
        return tree.unflatten(structure, updates), state

    return Optimizer(lambda params: inner.init(vector(params)), update, extra=inner.extra)


class RealAndImaginary(NamedTuple):
    """The two parts of a complex leaf."""

    real: Tensor
    imaginary: Tensor


class SplitRealAndImaginaryState(NamedTuple):
    """State of `split_real_and_imaginary`."""

    inner_state: Any


def split_real_and_imaginary(inner: Optimizer[Any]) -> Optimizer[SplitRealAndImaginaryState]:
    """Show an optimizer each complex leaf as two real ones.

    The optimizers of this library do so by themselves, entry by entry; this is for others, and for norms by part.

    >>> from torchpure import optim
    >>> params = torch.tensor([1 + 2j])
    >>> opt = split_real_and_imaginary(optim.clip(0.5))
    >>> opt.update(params, opt.init(params), params)[0]
    tensor([0.5000+0.5000j])
    """

    def init(params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.init(tree.map(_split, params)))

    def update(
        grads: Grads, state: SplitRealAndImaginaryState, params: Params, **extra: Any
    ) -> tuple[Updates, SplitRealAndImaginaryState]:
        parts = tree.map(_split, grads), tree.map(_split, params)
        updates, inner_state = inner.update(parts[0], state.inner_state, parts[1], **extra)
        return tree.map(_join, grads, updates), SplitRealAndImaginaryState(inner_state)

    return Optimizer(init, update, extra=inner.extra)


def _split(leaf: Any) -> Tree:
    is_complex = isinstance(leaf, Tensor) and leaf.is_complex()
    return RealAndImaginary(leaf.real, leaf.imag) if is_complex else leaf


def _join(gradient: Any, update: Any) -> Any:
    is_pair = isinstance(gradient, Tensor) and gradient.is_complex()
    return torch.complex(update.real, update.imaginary) if is_pair else update

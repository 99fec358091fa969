"""Transformations of some of the leaves."""

from typing import Any, NamedTuple

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Mask, Optimizer, check_optimizer, mask_fn, mask_tree, merge_masked, set_to_zero


class MaskedState(NamedTuple):
    """State of `masked`."""

    inner_state: Any  # of the inner optimizer, for the selected leaves; None elsewhere


def masked(inner: Optimizer[Any], mask: Mask) -> Optimizer[MaskedState]:
    """Transform the leaves that a mask selects, and pass on the gradients of the others.

    A mask is one of these: a glob over dotted paths, such as `masked(add_decayed_weights(0.1), "*.weight")`; a list of
    globs; a tree of bools, where a bool may stand for a whole subtree; a function from the parameters to such a tree.

    Raises:
        StructureError: the mask does not fit the parameters (when called).

    >>> import torch
    >>> from torchpure import optim
    >>> half = masked(optim.scale(0.5), "w")
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> half.update(params, half.init(params), params)[0]
    {'w': tensor([0.5000]), 'b': tensor([1.])}
    """
    check_optimizer("masked", inner)
    flags_of = mask_fn("masked", mask)

    def init(params: Params) -> MaskedState:
        return MaskedState(inner.init(mask_tree(flags_of(params), params, params, "masked")))

    def update(grads: Grads, state: MaskedState, params: Params, **extra: Any) -> tuple[Updates, MaskedState]:
        base = grads if params is None else params
        flags = flags_of(base)
        selected = mask_tree(flags, base, grads, "masked")
        selected_params = None if params is None else mask_tree(flags, base, params, "masked")
        updates, inner_state = inner.update(selected, state.inner_state, selected_params, **extra)
        return merge_masked(flags, base, updates, grads, "masked"), MaskedState(inner_state)

    return Optimizer(init, update, extra=inner.extra)


def freeze(mask: Mask) -> Optimizer[MaskedState]:
    """Make the updates of the leaves that a mask selects zero. Use it as the last part of a chain.

    >>> import torch
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> still = freeze("b")
    >>> still.update(params, still.init(params), params)[0]
    {'w': tensor([1.]), 'b': tensor([0.])}
    """
    return masked(set_to_zero(), mask)

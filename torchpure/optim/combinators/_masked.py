"""Transformations of a part of the leaves."""

from typing import Any, NamedTuple

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Mask, Optimizer, choice, keep, merge, set_to_zero


class MaskedState(NamedTuple):
    """State of `masked`."""

    inner_state: Any  # of the inner optimizer, for the leaves that are meant; None elsewhere


def masked(inner: Optimizer[Any], mask: Mask) -> Optimizer[MaskedState]:
    """Transform the leaves that a mask means; the others' gradients pass through.

    The mask is a tree of bools (a bool may stand for a whole subtree), a function of the parameters that gives one, or
    a glob over dotted paths, or a list of globs: `masked(add_decayed_weights(0.1), "*.weight")`.

    Raises:
        StructureError: the mask does not fit the parameters (when called).

    >>> import torch
    >>> from torchpure import optim
    >>> half = masked(optim.scale(0.5), "w")
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> half.update(params, half.init(params), params)[0]
    {'w': tensor([0.5000]), 'b': tensor([1.])}
    """
    flags = choice("masked", mask)

    def init(params: Params) -> MaskedState:
        return MaskedState(inner.init(keep(flags(params), params, params, "masked")))

    def update(grads: Grads, state: MaskedState, params: Params, **extra: Any) -> tuple[Updates, MaskedState]:
        base = grads if params is None else params
        chosen = flags(base)
        own = [keep(chosen, base, part, "masked") for part in (grads, base)]
        updates, inner_state = inner.update(own[0], state.inner_state, own[1], **extra)
        return merge(chosen, base, updates, grads, "masked"), MaskedState(inner_state)

    return Optimizer(init, update, extra=inner.extra)


def freeze(mask: Mask) -> Optimizer[MaskedState]:
    """Make the updates of the leaves that a mask means zero; the last part of a chain.

    >>> import torch
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> still = freeze("b")
    >>> still.update(params, still.init(params), params)[0]
    {'w': tensor([1.]), 'b': tensor([0.])}
    """
    return masked(set_to_zero(), mask)

"""Weight decay, and masks: a transformation of some leaves."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import EmptyState, GradientTransformation, identity

from ._checks import check_nonnegative
from ._leafwise import Formula, make_transformation
from .utils import flattened

__all__ = ["add_decayed_weights", "masked"]

AddDecayedWeightsState = EmptyState


class MaskedState(NamedTuple):
    """State of `masked`."""

    inner_state: Any  # of the inner transformation, for the selected leaves


class MaskedNode(NamedTuple):
    """What stands in a tree for a leaf that is not selected."""


@flattened
def masked(inner: GradientTransformation, mask: Any | Callable[[Any], Any] | None = None) -> GradientTransformation:
    """Apply `inner` to the leaves where the mask is True, and leave the others alone.

    The mask is a tree of bools, a prefix of one, or a function that makes one from the parameters or the updates.
    """

    def flags_of(tree: Any) -> Any:
        flags = mask(tree) if callable(mask) else mask
        return pytree.tree_broadcast_prefix(flags, tree)

    def select(tree: Any, flags: Any) -> Any:
        return pytree.tree_map(lambda leaf, flag: leaf if flag else MaskedNode(), tree, flags)

    def init(params: Any) -> MaskedState:
        return MaskedState(inner_state=inner.init(select(params, flags_of(params))))

    def update(updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]:
        flags = flags_of(updates)
        chosen = None if params is None else select(params, flags_of(params))
        new, inner_state = inner.update(select(updates, flags), state.inner_state, params=chosen, inplace=inplace)
        merged = pytree.tree_map(lambda old, flag, moved: moved if flag else old, updates, flags, new)
        return merged, MaskedState(inner_state=inner_state)

    return GradientTransformation(init, update)


@flattened
def add_decayed_weights(
    weight_decay: float = 0.0, mask: Any | Callable[[Any], Any] | None = None
) -> GradientTransformation:
    """Add `weight_decay` times the parameter to each update, where the mask is True.

    Raises:
        ValueError: `weight_decay` is negative.

    >>> import torch
    >>> add_decayed_weights(0.1).update((torch.tensor(1.0),), EmptyState(), params=(torch.tensor(2.0),))[0]
    (tensor(1.2000),)
    """
    check_nonnegative(weight_decay=weight_decay)
    if weight_decay == 0.0 and mask is None:
        return identity()

    def leaf(grad: Tensor, param: Tensor) -> tuple[Tensor]:
        return (grad.add(param, alpha=weight_decay),)

    decay = make_transformation(
        lambda params: AddDecayedWeightsState(),
        Formula(lambda state: leaf, writes=True, needs_params=True, constant=not isinstance(weight_decay, Tensor)),
    )
    return decay if mask is None else masked(decay, mask)

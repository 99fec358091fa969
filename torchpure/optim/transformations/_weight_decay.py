"""Weight decay apart from the gradient (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, line 12)."""

from torchpure._types import Grads, Params, Rate, Updates
from torchpure.optim.combinators import MaskedState, masked
from torchpure.optim.core import (
    EmptyState,
    Mask,
    Optimizer,
    check_rate,
    count,
    identity,
    is_zero,
    leafwise,
    rate_at,
    stateless_leafwise,
)

from ._scale import ScheduleState

Decayed = Optimizer[EmptyState] | Optimizer[ScheduleState] | Optimizer[MaskedState]


def add_decayed_weights(decay: Rate = 0.0, *, mask: Mask = None) -> Decayed:
    """Add a part of the parameters: u = g + decay p, on the leaves that the mask means, or on all.

    Before an optimizer this is the L2 penalty of torch.optim's `weight_decay`; after it, decoupled decay. The mask is
    as for `masked`, and `decay` a number, a tensor or a schedule.

    Raises:
        ValueError: `decay` is negative, not finite, or a tensor with a shape.
        TypeError: `decay` is not a number, a tensor or a schedule.

    >>> import torch
    >>> add_decayed_weights(0.5).update(torch.tensor([1.0]), EmptyState(), torch.tensor([4.0]))[0]
    tensor([3.])
    """
    check_rate("add_decayed_weights", decay, "decay")
    whole = _scheduled(decay) if callable(decay) else _constant(decay)
    return whole if mask is None else masked(whole, mask)


def _constant(decay: Rate) -> Optimizer[EmptyState]:
    return identity() if is_zero(decay) else stateless_leafwise("add_decayed_weights", lambda g, p: g + decay * p)


def _scheduled(decay: Rate) -> Optimizer[ScheduleState]:
    def update(grads: Grads, state: ScheduleState, params: Params) -> tuple[Updates, ScheduleState]:
        now = rate_at(decay, state.step)
        updates = leafwise("add_decayed_weights", lambda g, p: g + now * p, grads, (), params)
        return updates, ScheduleState(state.step + 1)

    return Optimizer(lambda params: ScheduleState(count(params)), update)

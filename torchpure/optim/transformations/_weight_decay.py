"""Weight decay apart from the gradient (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, line 12)."""

from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import MaskedState, masked
from torchpure.optim.core import (
    EmptyState,
    Mask,
    Optimizer,
    check_scalar,
    count,
    identity,
    is_zero,
    leafwise,
    stateless_leafwise,
    value_at,
)

from ._scale import ScheduleState

Decayed = Optimizer[EmptyState] | Optimizer[ScheduleState] | Optimizer[MaskedState]


def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, *, mask: Mask = None) -> Decayed:
    """Add a part of the parameters: u = g + weight_decay p, on the leaves that the mask means, or on all.

    Before an optimizer this is the L2 penalty of torch.optim's `weight_decay`; after it, decoupled decay. The mask is
    as for `masked`, and `weight_decay` a number, a tensor or a schedule.

    Raises:
        ValueError: `weight_decay` is negative, not finite, or a tensor with a shape.
        TypeError: `weight_decay` is not a number, a tensor or a schedule.

    >>> import torch
    >>> add_decayed_weights(0.5).update(torch.tensor([1.0]), EmptyState(), torch.tensor([4.0]))[0]
    tensor([3.])
    """
    check_scalar("add_decayed_weights", weight_decay, "weight_decay")
    whole = _scheduled(weight_decay) if callable(weight_decay) else _constant(weight_decay)
    return whole if mask is None else masked(whole, mask)


def _constant(weight_decay: ScalarOrSchedule) -> Optimizer[EmptyState]:
    return (
        identity()
        if is_zero(weight_decay)
        else stateless_leafwise("add_decayed_weights", lambda g, p: g + weight_decay * p)
    )


def _scheduled(weight_decay: ScalarOrSchedule) -> Optimizer[ScheduleState]:
    def update(grads: Grads, state: ScheduleState, params: Params) -> tuple[Updates, ScheduleState]:
        decay = value_at(weight_decay, state.step)
        updates = leafwise("add_decayed_weights", lambda g, p: g + decay * p, grads, (), params)
        return updates, ScheduleState(state.step + 1)

    return Optimizer(lambda params: ScheduleState(count(params)), update)

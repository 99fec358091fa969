"""Multiply updates by a number, which may follow a schedule."""

from typing import NamedTuple

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Schedule, Step, Updates
from torchpure.optim.core import EmptyState, Number, Optimizer, check_scalar, count


class ScheduleState(NamedTuple):
    """State of what follows a schedule: how many updates were made."""

    step: Step  # float64, shape ()


def scale(step_size: Number) -> Optimizer[EmptyState]:
    """Multiply updates by one number: u ← step_size g.

    >>> import torch
    >>> scale(-0.5).update(torch.tensor([2.0]), EmptyState(), None)[0]
    tensor([-1.])
    """

    def update(grads: Grads, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return tree.scale(grads, step_size), state

    return Optimizer(lambda params: EmptyState(), update)


def scale_by_schedule(step_size_fn: Schedule) -> Optimizer[ScheduleState]:
    """Multiply updates by a function of the step count: u ← step_size_fn(t) g, with t = 0 at the first update.

    >>> import torch
    >>> halve = scale_by_schedule(lambda step: 0.5**step)
    >>> halve.update(torch.tensor([2.0]), ScheduleState(torch.tensor(2.0)), None)[0]
    tensor([0.5000])
    """

    def update(grads: Grads, state: ScheduleState, params: Params) -> tuple[Updates, ScheduleState]:
        return tree.scale(grads, step_size_fn(state.step)), ScheduleState(state.step + 1)

    return Optimizer(lambda params: ScheduleState(count(params)), update)


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule, *, flip_sign: bool = True
) -> Optimizer[EmptyState] | Optimizer[ScheduleState]:
    """Descend: u ← −learning_rate g, the last part of most chains; u ← learning_rate g without `flip_sign`.

    Raises:
        ValueError: `learning_rate` is negative, not finite, or a tensor with a shape.
        TypeError: `learning_rate` is not a number, a tensor or a schedule.

    >>> import torch
    >>> scale_by_learning_rate(0.5).update(torch.tensor([2.0]), EmptyState(), None)[0]
    tensor([-1.])
    """
    check_scalar("scale_by_learning_rate", learning_rate)
    sign = -1.0 if flip_sign else 1.0
    if callable(learning_rate):
        return scale_by_schedule(lambda step: sign * learning_rate(step))
    return scale(sign * learning_rate)

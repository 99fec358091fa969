"""Multiplication of updates by a number or a schedule."""

from typing import Any, NamedTuple

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Schedule, Step, Updates
from torchpure.optim.core import (
    EmptyState,
    Number,
    Optimizer,
    check_scalar_or_schedule,
    evaluate_schedule,
    hint_torch_keywords,
    init_step_count,
)


class ScheduleState(NamedTuple):
    """State of transformations with a schedule."""

    step: Step  # number of updates made: float64, shape ()


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
    """Multiply updates by a function of the step count: u ← step_size_fn(t) g. At the first update t is 0.

    >>> import torch
    >>> halve = scale_by_schedule(lambda step: 0.5**step)
    >>> halve.update(torch.tensor([2.0]), ScheduleState(torch.tensor(2.0)), None)[0]
    tensor([0.5000])
    """

    def update(grads: Grads, state: ScheduleState, params: Params) -> tuple[Updates, ScheduleState]:
        return tree.scale(grads, evaluate_schedule(step_size_fn, state.step)), ScheduleState(state.step + 1)

    return Optimizer(lambda params: ScheduleState(init_step_count(params)), update)


@hint_torch_keywords
def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule, *, flip_sign: bool = True
) -> Optimizer[EmptyState] | Optimizer[ScheduleState]:
    """Multiply updates by the negative learning rate: u ← −learning_rate g. It is the last part of most chains.

    Without `flip_sign`, u ← learning_rate g.

    Raises:
        ValueError: `learning_rate` is negative, not finite, or a tensor with a shape.
        TypeError: `learning_rate` is not a number, a tensor or a schedule.

    >>> import torch
    >>> scale_by_learning_rate(0.5).update(torch.tensor([2.0]), EmptyState(), None)[0]
    tensor([-1.])
    """
    check_scalar_or_schedule("scale_by_learning_rate", learning_rate)
    sign = -1.0 if flip_sign else 1.0
    if callable(learning_rate):
        schedule: Any = lambda step: sign * evaluate_schedule(learning_rate, step)  # noqa: E731 checked at each step
        return scale_by_schedule(schedule)
    return scale(sign * learning_rate)

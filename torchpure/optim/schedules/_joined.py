"""Schedules that join other schedules."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure._types import Schedule
from torchpure.optim.core import Number, evaluate_schedule

from ._basic import (
    check_nonnegative_steps,
    cosine_decay_schedule,
    exponential_decay,
    float64_schedule,
    half_cosine,
    linear_schedule,
)


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Use one schedule after another. Each starts at its boundary, with a step count of 0.

    Raises:
        ValueError: the number of boundaries is not one less than that of schedules, or boundaries decrease.

    >>> from torchpure import optim
    >>> steps = join_schedules([optim.constant_schedule(1.0), optim.constant_schedule(0.5)], [10])
    >>> steps(torch.tensor([9.0, 10.0]))
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules: wanted one boundary fewer than schedules, "
            f"got {len(boundaries)} boundaries and {len(schedules)} schedules"
        )
    if sorted(boundaries) != list(boundaries):
        raise ValueError(f"join_schedules: boundaries must not decrease, got {list(boundaries)}")

    def value(step: Tensor) -> Tensor:
        result: Any = evaluate_schedule(schedules[0], step)
        for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
            result = torch.where(step < boundary, result, evaluate_schedule(schedule, (step - boundary).clamp(min=0)))
        return result

    return float64_schedule(value)


def warmup_constant_schedule(init_value: Number, peak_value: Number, warmup_steps: int) -> Schedule:
    """Increase linearly to `peak_value` over `warmup_steps`, then stay constant.

    Raises:
        ValueError: `warmup_steps` is not positive.

    >>> warmup_constant_schedule(0.0, 1.0, 10)(torch.tensor([5.0, 20.0]))
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if warmup_steps <= 0:
        raise ValueError(f"warmup_constant_schedule: warmup_steps must be greater than 0, got {warmup_steps}")
    return linear_schedule(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: int,
    decay_steps: int,
    end_value: Number = 0.0,
    exponent: Number = 1.0,
) -> Schedule:
    """Increase linearly to `peak_value` over `warmup_steps`, then decay along half a cosine.

    `decay_steps` is the number of all steps, those of the warm-up included. The last value is `end_value`.

    Raises:
        ValueError: `decay_steps` is not greater than `warmup_steps`, or `warmup_steps` is negative.

    >>> schedule = warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=110)
    >>> [round(schedule(torch.tensor(float(step))).item(), 6) for step in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check_nonnegative_steps("warmup_cosine_decay_schedule", warmup_steps=warmup_steps)
    if decay_steps <= warmup_steps:
        raise ValueError(
            "warmup_cosine_decay_schedule: decay_steps counts the warm-up and must be greater than it, "
            f"got decay_steps={decay_steps}, warmup_steps={warmup_steps}"
        )

    def decay(step: Tensor) -> Tensor:
        fraction = (step / (decay_steps - warmup_steps)).clamp(max=1)
        return end_value + (peak_value - end_value) * half_cosine(fraction) ** exponent

    return _after_warmup(init_value, peak_value, warmup_steps, float64_schedule(decay))


def warmup_exponential_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: Number,
    *,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Number | None = None,
) -> Schedule:
    """Increase linearly to `peak_value` over `warmup_steps`, then follow `exponential_decay`.

    Raises:
        ValueError: a count of steps is out of range, or `decay_rate` is 0.

    >>> warmup_exponential_decay_schedule(0.0, 1.0, 10, 5, 0.5)(torch.tensor([5.0, 15.0]))
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    check_nonnegative_steps("warmup_exponential_decay_schedule", warmup_steps=warmup_steps)
    decay = exponential_decay(
        peak_value,
        transition_steps,
        decay_rate,
        transition_begin=transition_begin,
        staircase=staircase,
        end_value=end_value,
    )
    return _after_warmup(init_value, peak_value, warmup_steps, decay)


def _after_warmup(start: Number, peak: Number, steps: int, decay: Schedule) -> Schedule:
    return join_schedules([linear_schedule(start, peak, steps), decay], [steps]) if steps else decay


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Repeat a warm-up and a cosine decay, with restarts (SGDR).

    `cosine_kwargs` has the arguments of `warmup_cosine_decay_schedule` for each round. A round takes its `decay_steps`.
    From Loshchilov and Hutter 2017, arXiv:1608.03983, section 3.

    Raises:
        ValueError: no round is given, or a step count is out of range.

    >>> one = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "decay_steps": 10}
    >>> sgdr_schedule([one, one])(torch.tensor([5.0, 10.0, 15.0]))
    tensor([1., 0., 1.], dtype=torch.float64)
    """
    rounds = [dict(kwargs) for kwargs in cosine_kwargs]
    if not rounds:
        raise ValueError("sgdr_schedule: wanted at least one round")
    ends = [sum(kwargs["decay_steps"] for kwargs in rounds[: index + 1]) for index in range(len(rounds))]
    return join_schedules([warmup_cosine_decay_schedule(**kwargs) for kwargs in rounds], ends[:-1])


def cosine_warm_restarts_schedule(
    init_value: Number, period: int, *, factor: int = 1, end_value: Number = 0.0
) -> Schedule:
    """Repeat a decay along half a cosine, like torch's CosineAnnealingWarmRestarts.

    The first round takes `period` steps. Each later round takes `factor` times as many steps as the round before.
    From Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5.

    Raises:
        ValueError: `period` or `factor` is not a whole number, at least 1.

    >>> cosine_warm_restarts_schedule(1.0, 10, factor=2)(torch.tensor([0.0, 5.0, 10.0, 20.0, 30.0]))
    tensor([1.0000, 0.5000, 1.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    for name, number in (("period", period), ("factor", factor)):
        if number < 1 or number != int(number):
            raise ValueError(f"cosine_warm_restarts_schedule: {name} must be a whole number, at least 1, got {number}")
    decay = cosine_decay_schedule(1.0, 1)

    def value(step: Tensor) -> Tensor:
        if factor == 1:
            fraction = torch.remainder(step, period) / period
        else:
            # round n starts at period (factorⁿ − 1) / (factor − 1); 1e-9, since the logarithm may round below n
            index = (torch.log1p(step * (factor - 1) / period) / math.log(factor) + 1e-9).floor()
            begin = period * (factor**index - 1) / (factor - 1)
            fraction = (step - begin) / (period * factor**index)
        return end_value + (init_value - end_value) * decay(fraction)

    return float64_schedule(value)

"""Exponential decay of a rate."""

import math
from typing import Any

import torch
from torch import Tensor

from torchpure.compat.torchopt.typing import Numeric, Scalar, Schedule

__all__ = ["exponential_decay"]


def exponential_decay(
    init_value: Scalar,
    decay_rate: Scalar,
    transition_begin: int = 0,
    transition_steps: int = 1,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Return init_value · decay_rateˢ.

    s = (count − transition_begin) / transition_steps, rounded down if `staircase`.
    The value is `init_value` until `transition_begin`, and does not pass `end_value`. It is constant if
    `transition_steps` ≤ 0 or `decay_rate` is 0. A count may be a tensor of any shape, also under vmap.

    >>> exponential_decay(1.0, 0.5, transition_steps=10)(20)
    0.25
    """
    if (transition_steps is not None and transition_steps <= 0) or decay_rate == 0:
        return lambda count: init_value
    begin = max(transition_begin, 0)

    def schedule(count: Numeric) -> Numeric:
        passed: Any = count - begin
        power = passed / transition_steps
        if isinstance(passed, Tensor):
            power = torch.floor(power) if staircase else power
            value = torch.where(passed <= 0, init_value, init_value * decay_rate**power)
            if end_value is None:
                return value
            return value.clamp(min=end_value) if decay_rate < 1.0 else value.clamp(max=end_value)
        power = math.floor(power) if staircase else power
        value = init_value if passed <= 0 else init_value * decay_rate**power
        if end_value is None:
            return value
        return max(value, end_value) if decay_rate < 1.0 else min(value, end_value)

    return schedule

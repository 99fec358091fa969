"""Schedules: pure functions from the step count to the rate, with optax's names and shapes.

The count starts at 0: the first update uses `schedule(0)`. Values are float64 of shape (), so that they do not limit
the precision of the parameters.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchpure._types import Schedule, Step


def constant_schedule(value: float) -> Schedule:
    """Keep one rate: value.

    >>> constant_schedule(0.1)(torch.tensor(7.0))
    tensor(0.1000, dtype=torch.float64)
    """
    return _float64(lambda step: torch.full_like(step, 1.0) * value)


def exponential_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    *,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Decay by a factor every `transition_steps`: init · decay_rate ** (step / transition_steps).

    Constant before `transition_begin`; in jumps with `staircase`; never past `end_value`.

    Raises:
        ValueError: `transition_steps` is not positive or `decay_rate` is 0.

    >>> exponential_decay(0.1, 10, 0.5)(torch.tensor(20.0))
    tensor(0.0250, dtype=torch.float64)
    """
    _check_steps("exponential_decay", transition_steps=transition_steps)
    if decay_rate == 0:
        raise ValueError("exponential_decay: decay_rate must not be 0")

    def value(step: Tensor) -> Tensor:
        passed = (step - transition_begin).clamp(min=0) / transition_steps
        decayed = init_value * decay_rate ** (passed.floor() if staircase else passed)
        if end_value is None:
            return decayed
        return decayed.clamp(min=end_value) if decay_rate < 1 else decayed.clamp(max=end_value)

    return _float64(value)


def cosine_decay_schedule(init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0) -> Schedule:
    """Fall along half a cosine from `init_value` to alpha · init_value (Loshchilov and Hutter 2017, arXiv:1608.03983).

    Raises:
        ValueError: `decay_steps` is not positive.

    >>> cosine_decay_schedule(1.0, 10)(torch.tensor(5.0))
    tensor(0.5000, dtype=torch.float64)
    """
    _check_steps("cosine_decay_schedule", decay_steps=decay_steps)

    def value(step: Tensor) -> Tensor:
        fraction = step.clamp(max=decay_steps) / decay_steps
        cosine = 0.5 * (1 + torch.cos(math.pi * fraction))
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return _float64(value)


def warmup_cosine_decay_schedule(
    init_value: float, peak_value: float, warmup_steps: int, decay_steps: int, end_value: float = 0.0
) -> Schedule:
    """Rise in a line to `peak_value` over `warmup_steps`, then fall along half a cosine; `decay_steps` counts both.

    Raises:
        ValueError: `decay_steps` is not greater than `warmup_steps`, or `warmup_steps` is negative.

    >>> schedule = warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=110)
    >>> [round(schedule(torch.tensor(float(step))).item(), 6) for step in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if warmup_steps < 0:
        raise ValueError(f"warmup_cosine_decay_schedule: warmup_steps must be at least 0, got {warmup_steps}")
    if decay_steps <= warmup_steps:
        raise ValueError(
            "warmup_cosine_decay_schedule: decay_steps counts the warm-up and must be greater than it, "
            f"got decay_steps={decay_steps}, warmup_steps={warmup_steps}"
        )

    def value(step: Tensor) -> Tensor:
        rising = init_value + (peak_value - init_value) * step / max(warmup_steps, 1)
        fraction = ((step - warmup_steps) / (decay_steps - warmup_steps)).clamp(0, 1)
        falling = end_value + (peak_value - end_value) * 0.5 * (1 + torch.cos(math.pi * fraction))
        return torch.where(step < warmup_steps, rising, falling)

    return _float64(value)


def _float64(value: Callable[[Tensor], Tensor]) -> Schedule:
    def schedule(step: Step) -> Tensor:
        return value(torch.as_tensor(step, dtype=torch.float64))

    return schedule


def _check_steps(who: str, **steps: int) -> None:
    for name, number in steps.items():
        if number <= 0:
            raise ValueError(f"{who}: {name} must be greater than 0, got {number}")

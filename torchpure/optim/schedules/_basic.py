"""Schedules: pure functions from the step count to the learning rate, with optax's names and shapes.

The count starts at 0: the first update uses `schedule(0)`. Values are float64, so that they do not limit the precision
of the parameters. A tensor of counts gives as many values: `plot(schedule(torch.arange(100)))`. Every number but the
counts of steps may be a tensor, to be batched or differentiated.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchpure._types import Schedule, Step
from torchpure.optim.core import Number


def constant_schedule(value: Number) -> Schedule:
    """Keep one learning rate: value.

    >>> constant_schedule(0.1)(torch.tensor(7.0))
    tensor(0.1000, dtype=torch.float64)
    """
    return float64(lambda step: torch.full_like(step, 1.0) * value)


def polynomial_schedule(
    init_value: Number, end_value: Number, power: Number, transition_steps: int, *, transition_begin: int = 0
) -> Schedule:
    """Go from `init_value` to `end_value` as a power: end + (init − end) (1 − (step − begin) / transition_steps)^power.

    Constant before `transition_begin`, and `transition_steps` later.

    Raises:
        ValueError: `transition_steps` is not positive, or `transition_begin` negative.

    >>> polynomial_schedule(1.0, 0.0, 2.0, 10)(torch.tensor(5.0))
    tensor(0.2500, dtype=torch.float64)
    """
    return _polynomial("polynomial_schedule", init_value, end_value, power, transition_steps, transition_begin)


def linear_schedule(
    init_value: Number, end_value: Number, transition_steps: int, *, transition_begin: int = 0
) -> Schedule:
    """Go from `init_value` to `end_value` in a line of `transition_steps`, which starts at `transition_begin`.

    Raises:
        ValueError: `transition_steps` is not positive, or `transition_begin` negative.

    >>> linear_schedule(1.0, 0.0, 10)(torch.tensor(4.0))
    tensor(0.6000, dtype=torch.float64)
    """
    return _polynomial("linear_schedule", init_value, end_value, 1, transition_steps, transition_begin)


def _polynomial(who: str, start: Number, end: Number, power: Number, steps: int, begin: int) -> Schedule:
    check_steps(who, transition_steps=steps)
    check_begin(who, transition_begin=begin)
    return float64(lambda step: end + (start - end) * (1 - (step - begin).clamp(0, steps) / steps) ** power)


def exponential_decay(
    init_value: Number,
    transition_steps: int,
    decay_rate: Number,
    *,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Number | None = None,
) -> Schedule:
    """Decay by a factor every `transition_steps`: init · decay_rate ** (step / transition_steps).

    Constant before `transition_begin`; in jumps with `staircase`; never past `end_value`.

    Raises:
        ValueError: `transition_steps` is not positive, `transition_begin` negative, or `decay_rate` is 0.

    >>> exponential_decay(0.1, 10, 0.5)(torch.tensor(20.0))
    tensor(0.0250, dtype=torch.float64)
    """
    check_steps("exponential_decay", transition_steps=transition_steps)
    check_begin("exponential_decay", transition_begin=transition_begin)
    if not isinstance(decay_rate, Tensor) and decay_rate == 0:
        raise ValueError("exponential_decay: decay_rate must not be 0")

    def value(step: Tensor) -> Tensor:
        passed = (step - transition_begin).clamp(min=0) / transition_steps
        decayed = init_value * decay_rate ** (passed.floor() if staircase else passed)
        if end_value is None:
            return decayed
        end = torch.as_tensor(end_value, dtype=decayed.dtype)
        falls = torch.as_tensor(decay_rate, dtype=torch.float64) < 1
        return torch.where(falls, torch.maximum(decayed, end), torch.minimum(decayed, end))

    return float64(value)


def cosine_decay_schedule(
    init_value: Number, decay_steps: int, alpha: Number = 0.0, exponent: Number = 1.0
) -> Schedule:
    """Fall along half a cosine from `init_value` to alpha · init_value (Loshchilov and Hutter 2017, arXiv:1608.03983).

    The cosine, between 1 and 0, is raised to `exponent`.

    Raises:
        ValueError: `decay_steps` is not positive.

    >>> cosine_decay_schedule(1.0, 10)(torch.tensor(5.0))
    tensor(0.5000, dtype=torch.float64)
    """
    check_steps("cosine_decay_schedule", decay_steps=decay_steps)

    def value(step: Tensor) -> Tensor:
        cosine = half_cosine(step.clamp(max=decay_steps) / decay_steps)
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return float64(value)


def half_cosine(fraction: Tensor) -> Tensor:
    """Fall from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + torch.cos(math.pi * fraction))


def float64(value: Callable[[Tensor], Tensor]) -> Schedule:
    """Make a schedule of a formula: it takes whole numbers too, and gives float64."""

    def schedule(step: Step) -> Tensor:
        return value(torch.as_tensor(step, dtype=torch.float64))

    return schedule


def check_steps(who: str, **steps: int) -> None:
    """Check that counts of steps are greater than 0.

    Raises:
        ValueError: one is not.
    """
    for name, number in steps.items():
        if number <= 0:
            raise ValueError(f"{who}: {name} must be greater than 0, got {number}")


def check_begin(who: str, **steps: int) -> None:
    """Check that counts of steps are at least 0.

    Raises:
        ValueError: one is not.
    """
    for name, number in steps.items():
        if number < 0:
            raise ValueError(f"{who}: {name} must be at least 0, got {number}")

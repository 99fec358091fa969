"""Basic schedules, with the names and formulas of optax.

A schedule is a pure function from the step count to the learning rate. The first update uses `schedule(0)`. Values are
float64, so that they do not limit the precision of the parameters. A tensor of step counts gives a tensor of values:
`plot(schedule(torch.arange(100)))`. Arguments that are not step counts may be tensors, to batch or differentiate them.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchpure._types import Schedule, Step
from torchpure.optim.core import Number


def constant_schedule(value: Number) -> Schedule:
    """Return a constant learning rate: value.

    >>> constant_schedule(0.1)(torch.tensor(7.0))
    tensor(0.1000, dtype=torch.float64)
    """
    return float64_schedule(lambda step: torch.full_like(step, 1.0) * value)


def polynomial_schedule(
    init_value: Number, end_value: Number, power: Number, transition_steps: int, *, transition_begin: int = 0
) -> Schedule:
    """Interpolate with a power: end + (init − end) (1 − (step − begin) / transition_steps)^power.

    The value is `init_value` until `transition_begin`, and `end_value` from `transition_steps` later on.

    Raises:
        ValueError: `transition_steps` is not positive, or `transition_begin` negative.

    >>> polynomial_schedule(1.0, 0.0, 2.0, 10)(torch.tensor(5.0))
    tensor(0.2500, dtype=torch.float64)
    """
    return _polynomial("polynomial_schedule", init_value, end_value, power, transition_steps, transition_begin)


def linear_schedule(
    init_value: Number, end_value: Number, transition_steps: int, *, transition_begin: int = 0
) -> Schedule:
    """Interpolate linearly: end + (init − end) (1 − (step − begin) / transition_steps).

    The value is `init_value` until `transition_begin`, and `end_value` from `transition_steps` later on.

    Raises:
        ValueError: `transition_steps` is not positive, or `transition_begin` negative.

    >>> linear_schedule(1.0, 0.0, 10)(torch.tensor(4.0))
    tensor(0.6000, dtype=torch.float64)
    """
    return _polynomial("linear_schedule", init_value, end_value, 1, transition_steps, transition_begin)


def _polynomial(caller: str, start: Number, end: Number, power: Number, steps: int, begin: int) -> Schedule:
    check_positive_steps(caller, transition_steps=steps)
    check_nonnegative_steps(caller, transition_begin=begin)
    return float64_schedule(lambda step: end + (start - end) * (1 - (step - begin).clamp(0, steps) / steps) ** power)


def exponential_decay(
    init_value: Number,
    transition_steps: int,
    decay_rate: Number,
    *,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Number | None = None,
) -> Schedule:
    """Decay exponentially: init · decay_rate^((step − begin) / transition_steps).

    The value is constant until `transition_begin`, and never passes `end_value`. With `staircase` it changes only every
    `transition_steps`.

    Raises:
        ValueError: `transition_steps` is not positive, `transition_begin` negative, or `decay_rate` is 0.

    >>> exponential_decay(0.1, 10, 0.5)(torch.tensor(20.0))
    tensor(0.0250, dtype=torch.float64)
    """
    check_positive_steps("exponential_decay", transition_steps=transition_steps)
    check_nonnegative_steps("exponential_decay", transition_begin=transition_begin)
    if not isinstance(decay_rate, Tensor) and decay_rate == 0:
        raise ValueError("exponential_decay: decay_rate must not be 0")

    def value(step: Tensor) -> Tensor:
        passed = (step - transition_begin).clamp(min=0) / transition_steps
        decayed = init_value * decay_rate ** (passed.floor() if staircase else passed)
        if end_value is None:
            return decayed
        end = torch.as_tensor(end_value, dtype=decayed.dtype)
        decreases = torch.as_tensor(decay_rate, dtype=torch.float64) < 1
        return torch.where(decreases, torch.maximum(decayed, end), torch.minimum(decayed, end))

    return float64_schedule(value)


def cosine_decay_schedule(
    init_value: Number, decay_steps: int, alpha: Number = 0.0, exponent: Number = 1.0
) -> Schedule:
    """Decay along half a cosine: init ((1 − alpha) (½ (1 + cos(π step / decay_steps)))^exponent + alpha).

    After `decay_steps` the value is alpha · init. From Loshchilov and Hutter 2017, arXiv:1608.03983.

    Raises:
        ValueError: `decay_steps` is not positive.

    >>> cosine_decay_schedule(1.0, 10)(torch.tensor(5.0))
    tensor(0.5000, dtype=torch.float64)
    """
    check_positive_steps("cosine_decay_schedule", decay_steps=decay_steps)

    def value(step: Tensor) -> Tensor:
        cosine = half_cosine(step.clamp(max=decay_steps) / decay_steps)
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return float64_schedule(value)


def half_cosine(fraction: Tensor) -> Tensor:
    """Return ½ (1 + cos(π fraction)), which falls from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + torch.cos(math.pi * fraction))


def float64_schedule(value: Callable[[Tensor], Tensor]) -> Schedule:
    """Make a schedule from a formula: convert the step count, which may be an integer, to float64."""

    def schedule(step: Step) -> Tensor:
        return value(torch.as_tensor(step, dtype=torch.float64))

    return schedule


def check_positive_steps(caller: str, **steps: int) -> None:
    """Check that counts of steps are greater than 0.

    Raises:
        ValueError: one is not.
    """
    for name, number in steps.items():
        if number <= 0:
            raise ValueError(f"{caller}: {name} must be greater than 0, got {number}")


def check_nonnegative_steps(caller: str, **steps: int) -> None:
    """Check that counts of steps are at least 0.

    Raises:
        ValueError: one is not.
    """
    for name, number in steps.items():
        if number < 0:
            raise ValueError(f"{caller}: {name} must be at least 0, got {number}")

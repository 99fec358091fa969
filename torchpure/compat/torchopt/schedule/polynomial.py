"""Polynomial and linear change of a rate."""

from typing import Any

from torch import Tensor

from torchpure.compat.torchopt.typing import Numeric, Scalar, Schedule

__all__ = ["linear_schedule", "polynomial_schedule"]


def polynomial_schedule(
    init_value: Scalar, end_value: Scalar, power: Scalar, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Return (init_value − end_value) (1 − s)ᵖᵒʷᵉʳ + end_value.

    s = (count − transition_begin) / transition_steps, between 0 and 1.
    It is constant if `transition_steps` ≤ 0. A negative `transition_begin` counts as 0.

    >>> polynomial_schedule(1.0, 0.0, 2, transition_steps=10)(5)
    0.25
    """
    if transition_steps <= 0:
        return lambda count: init_value
    begin = max(transition_begin, 0)

    def schedule(count: Numeric) -> Numeric:
        passed: Any = count - begin
        passed = (
            passed.clamp(0, transition_steps) if isinstance(passed, Tensor) else min(max(passed, 0), transition_steps)
        )
        return (init_value - end_value) * (1.0 - passed / transition_steps) ** power + end_value

    return schedule


def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Change linearly from `init_value` to `end_value`.

    >>> linear_schedule(1.0, 0.0, transition_steps=4)(1)
    0.75
    """
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)

"""Checks of hyper-parameters, made once, when the optimizer is. Tensors are taken as they are: they may be traced."""

from typing import Any

from torch import Tensor

from torchpure._types import ScalarOrSchedule

INFINITY = float("inf")


def check_scalar(who: str, value: ScalarOrSchedule, name: str = "learning_rate") -> None:
    """Check a learning rate, or another number that may follow a schedule.

    Raises:
        ValueError: it is negative, not finite, or a tensor with more than one entry.
        TypeError: it is not a number, a tensor or a schedule.
    """
    if isinstance(value, Tensor):
        if value.ndim:
            raise ValueError(
                f"{who}: {name} must be a tensor of shape (), got shape {tuple(value.shape)}; vmap over it"
            )
    elif isinstance(value, bool) or not (callable(value) or isinstance(value, int | float)):
        raise TypeError(f"{who}: {name} must be a number, a tensor of shape () or a schedule, got {value!r:.40}")
    elif not callable(value) and not 0 <= value < INFINITY:
        raise ValueError(f"{who}: {name} must be finite and at least 0, got {value}")


def check_unit(who: str, **values: Any) -> None:
    """Check that numbers lie in [0, 1).

    Raises:
        ValueError: one does not.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0 <= value < 1:
            raise ValueError(f"{who}: {name} must be in [0, 1), got {value}")


def check_positive(who: str, **values: Any) -> None:
    """Check that numbers are finite and at least 0.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0 <= value < INFINITY:
            raise ValueError(f"{who}: {name} must be finite and at least 0, got {value}")


def check_above(who: str, bound: float, **values: Any) -> None:
    """Check that numbers are finite and greater than a bound.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not bound < value < INFINITY:
            raise ValueError(f"{who}: {name} must be finite and greater than {bound}, got {value}")


def check_count(who: str, **values: Any) -> None:
    """Check that numbers are whole and at least 1.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not (value >= 1 and value == int(value)):
            raise ValueError(f"{who}: {name} must be a whole number, at least 1, got {value}")


def is_zero(value: Any) -> bool:
    """Tell whether a hyper-parameter is the number 0, so that its term can be left out; a tensor never is."""
    return not isinstance(value, Tensor) and not callable(value) and value == 0

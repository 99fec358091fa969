"""Checks of hyper-parameters. A factory makes them once. The values of tensors are not checked: they may be traced."""

from numbers import Real
from typing import Any

from torch import Tensor, nn

from torchpure._types import ScalarOrSchedule

INFINITY = float("inf")


def check_scalar_or_schedule(caller: str, value: ScalarOrSchedule, name: str = "learning_rate") -> None:
    """Check a learning rate, or another number that may follow a schedule.

    Raises:
        ValueError: it is negative, not finite, or a tensor whose shape is not ().
        TypeError: it is not a number, a tensor or a schedule.
    """
    if isinstance(value, Tensor):
        if value.ndim:
            raise ValueError(
                f"{caller}: {name} must be a tensor of shape (), got shape {tuple(value.shape)}; vmap over it"
            )
    elif isinstance(value, bool | nn.Module) or not (callable(value) or isinstance(value, int | float)):
        simple = value is None or isinstance(value, bool | str | complex)
        way_out = "" if simple else f": pass parameters to init, as in {caller}(…).init(params)"
        got = f"{value!r:.40}" if simple else type(value).__name__
        raise TypeError(f"{caller}: {name} must be a number, a tensor of shape () or a schedule, got {got}{way_out}")
    elif not callable(value) and not 0 <= value < INFINITY:
        raise ValueError(f"{caller}: {name} must be finite and at least 0, got {value}")


def check_unit_interval(caller: str, **values: Any) -> None:
    """Check that numbers lie in [0, 1).

    Raises:
        ValueError: one does not.
        TypeError: one is no number.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0 <= _number(caller, name, value) < 1:
            raise ValueError(f"{caller}: {name} must be in [0, 1), got {value}")


def check_nonnegative(caller: str, **values: Any) -> None:
    """Check that numbers are finite and at least 0.

    Raises:
        ValueError: one is not.
        TypeError: one is no number.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0 <= _number(caller, name, value) < INFINITY:
            raise ValueError(f"{caller}: {name} must be finite and at least 0, got {value}")


def check_above(caller: str, bound: float, **values: Any) -> None:
    """Check that numbers are finite and greater than a bound.

    Raises:
        ValueError: one is not.
        TypeError: one is no number.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not bound < _number(caller, name, value) < INFINITY:
            raise ValueError(f"{caller}: {name} must be finite and greater than {bound}, got {value}")


def check_count(caller: str, **values: Any) -> None:
    """Check that numbers are whole and at least 1.

    Raises:
        ValueError: one is not.
        TypeError: one is no number.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not (_number(caller, name, value) >= 1 and value == int(value)):
            raise ValueError(f"{caller}: {name} must be a whole number, at least 1, got {value}")


def _number(caller: str, name: str, value: Any) -> Any:
    """Return a value that is a real number.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, Real):
        got = "a function: this number takes no schedule" if callable(value) else f"{value!r:.40}"
        raise TypeError(f"{caller}: {name} must be a number or a tensor of shape (), got {got}")
    return value


def is_zero(value: Any) -> bool:
    """Return whether a hyper-parameter is the Python number 0, so that its term can be left out."""
    return not isinstance(value, Tensor) and not callable(value) and value == 0

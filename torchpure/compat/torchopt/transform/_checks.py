"""Checks of hyper-parameters, with torchopt's messages."""

from typing import Any


def check_nonnegative(**numbers: Any) -> None:
    """Raise ValueError if a number is negative or NaN. An underscore in a name stands for a space.

    Raises:
        ValueError: it is.
    """
    for name, number in numbers.items():
        if not number >= 0.0:
            raise ValueError(f"Invalid {_LABELS.get(name, name + ' value')}: {number}")


_LABELS = {"eps": "epsilon value", "lr": "learning rate"}


def check_betas(b1: Any, b2: Any) -> None:
    """Raise ValueError if a decay is not in [0, 1).

    Raises:
        ValueError: it is not.
    """
    for index, beta in enumerate((b1, b2)):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")


def check_learning_rate(lr: Any) -> None:
    """Raise ValueError if the rate is no schedule and negative."""
    if not callable(lr):
        check_nonnegative(lr=lr)


def check_closed_interval(**numbers: Any) -> None:
    """Raise ValueError if a number is not in [0, 1].

    Raises:
        ValueError: it is not.
    """
    for name, number in numbers.items():
        if not 0 <= number <= 1:
            raise ValueError(f"Invalid {name} value: {number}")


def check_nesterov(nesterov: bool, momentum: Any, dampening: Any) -> None:
    """Raise ValueError for Nesterov's momentum without momentum, or with dampening.

    Raises:
        ValueError: these are the arguments.
    """
    if nesterov and (momentum <= 0.0 or dampening != 0.0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")

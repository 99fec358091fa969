"""Errors of the names that need remote procedure calls."""

from typing import Any, NoReturn


def refused(name: str) -> Any:
    """Make a function whose call says what replaces the name."""

    def raise_error(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"torchopt.{name}: this library makes no remote procedure calls. docs/scale.md shows how one "
            f"program runs on "
            "many devices, and many programs on many machines"
        )

    raise_error.__name__ = raise_error.__qualname__ = name.rpartition(".")[2]
    raise_error.__doc__ = "Raise an error: there are no remote procedure calls here."
    return raise_error

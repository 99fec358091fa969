"""What runs around a function, and must run around it again when a rule runs the function later.

Two things are resumable, and `torchpure.model` has both: the call of a module, which lends its private copy, and the
mode that answers random draws from a key.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from ._context import current


class Resumable(Protocol):
    """A call of a module, or a mode, that is active in this thread."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that it needs, which become inputs of an operation."""
        ...

    @property
    def buffers(self) -> list[Tensor]:
        """The tensors that functions inside of it may change."""
        ...

    def set_buffers(self, values: Sequence[Tensor], /) -> None:
        """Replace the buffers."""
        ...

    def snapshot(self) -> "Resumable":
        """Return its state now, from which later runs start."""
        ...

    def resumed(self, tensors: Sequence[Tensor], /) -> AbstractContextManager[Any]:
        """Activate it again inside of the block, with these tensors instead of its own."""
        ...


class resumable:  # noqa: N801 a context manager
    """Register something resumable while the block runs."""

    __slots__ = ("_before", "_value")

    def __init__(self, value: Resumable) -> None:
        self._value = value

    def __enter__(self) -> None:
        self._before = current.resumables
        current.resumables = (*self._before, self._value)

    def __exit__(self, *error: Any) -> None:
        current.resumables = self._before


def active_resumables() -> tuple[Resumable, ...]:
    """Return what is resumable in this thread, outermost first."""
    return current.resumables

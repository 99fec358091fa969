"""Hooks on updates, and the transformation that registers them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from . import pytree
from .base import EmptyState, GradientTransformation

__all__ = ["nan_to_num_hook", "register_hook", "zero_nan_hook"]


def zero_nan_hook(g: Tensor) -> Tensor:
    """Replace NaN by 0, and infinities by the greatest or least number of the dtype."""
    return g.nan_to_num(nan=0.0)


def nan_to_num_hook(
    nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Callable[[Tensor], Tensor]:
    """Make a hook that replaces NaN and infinities."""
    return lambda g: g.nan_to_num(nan=nan, posinf=posinf, neginf=neginf)


def register_hook(hook: Callable[[Tensor], Tensor | None]) -> GradientTransformation:
    """Register the hook on each update: it sees the gradient with respect to the update.

    An update that requires no grad cannot have one: torch raises a RuntimeError.
    """

    def update(updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]:
        pytree.tree_map_(lambda leaf: leaf.register_hook(hook), updates)
        return updates, state

    return GradientTransformation(lambda params: EmptyState(), update)

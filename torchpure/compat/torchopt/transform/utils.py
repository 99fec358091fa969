"""Maps over flat sequences, counts and moments, by torchopt's names."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree

__all__ = ["inc_count", "tree_map_flat", "tree_map_flat_", "update_moment"]

INT64_MAX = torch.iinfo(torch.int64).max


def tree_map_flat(func: Callable[..., Any], flat_arg: Any, *flat_args: Any, none_is_leaf: bool = False) -> Any:
    """Map over flat sequences; a None in the first one stays None.

    >>> tree_map_flat(lambda x, y: x + y, [1, None], [2, 3])
    [3, None]
    """
    fn = func if none_is_leaf else _skip_none(func)
    return type(flat_arg)(map(fn, flat_arg, *flat_args))


def tree_map_flat_(func: Callable[..., Any], flat_arg: Any, *flat_args: Any, none_is_leaf: bool = False) -> Any:
    """Call the function on flat sequences, and return the first one."""
    fn = func if none_is_leaf else _skip_none(func)
    deque(map(fn, flat_arg, *flat_args), maxlen=0)
    return flat_arg


def _skip_none(func: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *xs: None if x is None else func(x, *xs)


def inc_count(updates: Any, count: Any) -> Any:
    """Add 1 to the count of each leaf that has an update, up to the greatest int64."""
    return pytree.tree_map(lambda c, g: c if g is None else next_count(c), count, updates, none_is_leaf=True)


def next_count(count: Tensor) -> Tensor:
    """Return the next count; the greatest int64 stays."""
    return count + (count != INT64_MAX).to(torch.int64)


def moment(grad: Tensor, old: Tensor, decay: float, order: int) -> Tensor:
    """Return decay · old + (1 − decay) · gradᵒʳᵈᵉʳ, or the sum of both if `decay` is 1."""
    weight = 1 - decay if decay != 1.0 else 1.0
    kept = old.mul(decay) if decay != 1.0 else old
    return kept.add(grad, alpha=weight) if order == 1 else kept.addcmul(grad, grad, value=weight)


def update_moment(updates: Any, moments: Any, decay: float, *, order: int, inplace: bool = True) -> Any:
    """Update the running means of the gradients (`order` 1) or of their squares (`order` 2).

    >>> update_moment((torch.tensor(2.0),), (torch.tensor(1.0),), 0.5, order=2, inplace=False)
    (tensor(2.5000),)
    """
    assert order in (1, 2)

    def update(grad: Tensor | None, old: Tensor) -> Tensor:
        if grad is None:
            return old
        new = moment(grad, old, decay, order)
        return old.copy_(new) if inplace else new

    return pytree.tree_map(update, updates, moments, none_is_leaf=True)


def init_like(params: Any, *, requires_grad: bool = False) -> Any:
    """Make zeros like each parameter."""
    return pytree.tree_map(lambda p: torch.zeros_like(p, requires_grad=requires_grad), params)


def init_counts(params: Any) -> Any:
    """Make a count of 0, int64, for each parameter."""
    return pytree.tree_map(lambda p: torch.zeros((), dtype=torch.int64, device=p.device), params)


def flattened(transformation: Callable[..., Any]) -> Callable[..., Any]:
    """Give a factory torchopt's attributes: `flat` is for flat sequences, and `impl` chooses by `already_flattened`.

    A flat sequence is a tree, so all three are one function.
    """

    def impl(*args: Any, already_flattened: bool = False, **kwargs: Any) -> Any:
        return transformation(*args, **kwargs)

    transformation.flat, transformation.impl = transformation, impl  # pyrefly: ignore[missing-attribute]
    return transformation


for _function in (inc_count, update_moment):
    flattened(_function)

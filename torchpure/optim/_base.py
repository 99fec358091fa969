"""What an optimizer is: a pair of pure functions, and the step that both make together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Rate, Step, Updates
from torchpure.errors import StructureError

S = TypeVar("S")
Kernel = Callable[[Grads, S, Params], tuple[Params, S] | None]


@dataclass(frozen=True, slots=True)
class Optimizer(Generic[S]):
    """A pair of pure functions `init(params)` and `update(grads, state, params)`.

    `update` returns what is to be added to the parameters, and the new state. A gradient that is None leaves its
    parameter and its part of the state as they are.
    """

    init: Callable[[Params], S]
    update: Callable[[Grads, S, Params], tuple[Updates, S]]
    kernel: Kernel[S] | None = None  # the same step, in fewer kernels; None where it does not apply

    def step(self, grads: Grads, state: S, params: Params) -> tuple[Params, S]:
        """Update and apply in one call: (new params, new state).

        Law: `step(g, s, p) == (apply_updates(p, u), s')` where `u, s' = update(g, s, p)`, up to rounding.

        Raises:
            StructureError: grads or state are not shaped like params.
        """
        result = self.kernel(grads, state, params) if self.kernel else None
        if result is not None:
            return result
        updates, new_state = self.update(grads, state, params)
        return apply_updates(params, updates), new_state


def apply_updates(params: Params, updates: Updates) -> Params:
    """Add updates to parameters; where an update is None the parameter stays. Each keeps its dtype.

    Raises:
        StructureError: updates are not shaped like params.

    >>> apply_updates({"w": torch.ones(2), "n": 3}, {"w": torch.ones(2), "n": None})
    {'w': tensor([2., 2.]), 'n': 3}
    """
    leaves, structure = tree.flatten(params)
    moves = tree.align(structure, params, updates, "apply_updates")
    if leaves and tree.plain(leaves) and tree.plain(moves) and _same_dtypes(leaves, moves):
        return tree.unflatten(structure, torch._foreach_add(leaves, moves))
    return tree.unflatten(structure, [_moved(leaf, move) for leaf, move in zip(leaves, moves, strict=True)])


def _same_dtypes(leaves: list[Tensor], moves: list[Tensor]) -> bool:
    return all(leaf.dtype == move.dtype for leaf, move in zip(leaves, moves, strict=True))


def _moved(leaf: Any, move: Any) -> Any:
    return leaf if move is None else (leaf + move).to(leaf.dtype)


def moments(params: Params) -> Params:
    """Make zeros for each leaf that can have a gradient, None for the others."""
    return tree.map(lambda leaf: torch.zeros_like(leaf) if has_gradient(leaf) else None, params)


def has_gradient(leaf: Any) -> bool:
    """Tell whether a parameter of this kind can have a gradient."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def count(params: Params) -> Step:
    """Make a step count of zero, on the device of the parameters."""
    first = next((leaf for leaf in tree.leaves(params) if has_gradient(leaf)), None)
    # float64, so that powers of it stay exact; a Python int would recompile at every step
    return torch.zeros((), dtype=torch.float64, device=first.device if first is not None else None)


def check_rate(who: str, rate: Rate) -> None:
    """Check a rate once, when the optimizer is made.

    Raises:
        ValueError: it is negative, not finite, or a tensor with more than one entry.
        TypeError: it is not a number, a tensor or a schedule.
    """
    if isinstance(rate, Tensor):
        if rate.ndim:
            raise ValueError(f"{who}: rate must be a tensor of shape (), got shape {tuple(rate.shape)}; vmap over it")
    elif isinstance(rate, bool) or not (callable(rate) or isinstance(rate, int | float)):
        raise TypeError(f"{who}: rate must be a number, a tensor of shape () or a schedule, got {rate!r:.40}")
    elif not callable(rate) and not 0 <= rate < float("inf"):
        raise ValueError(f"{who}: rate must be finite and at least 0, got {rate}")


def check_unit(who: str, **values: Any) -> None:
    """Check that numbers lie in [0, 1); tensors are taken as they are.

    Raises:
        ValueError: one does not.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0 <= value < 1:
            raise ValueError(f"{who}: {name} must be in [0, 1), got {value}")


def check_positive(who: str, **values: Any) -> None:
    """Check that numbers are finite and at least 0; tensors are taken as they are.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0 <= value < float("inf"):
            raise ValueError(f"{who}: {name} must be finite and at least 0, got {value}")


def rate_at(rate: Rate, step: Step) -> float | Tensor:
    """Evaluate a rate at a step count."""
    return rate(step) if callable(rate) else rate


def active(who: str, params: Params, grads: Grads, *moments_: Params) -> tuple[list[list[Any]], Callable[..., Params]]:
    """List the leaves that have a gradient, as columns (params, grads, moments …), and how to put results back.

    `restore(values, tree)` returns `tree` with these values in the place of its active leaves.

    Raises:
        StructureError: a tree is not shaped like params, or a gradient not like its parameter.
    """
    leaves, structure = tree.flatten(params)
    columns = [leaves, *(tree.align(structure, params, other, who) for other in (grads, *moments_))]
    chosen = [grad is not None for grad in columns[1]]
    for number, (leaf, gradient) in enumerate(zip(leaves, columns[1], strict=True)):
        if gradient is not None and getattr(gradient, "shape", None) != getattr(leaf, "shape", None):
            path, got, wanted = tree.paths(params)[number], tree.describe(gradient), tree.describe(leaf)
            raise StructureError(f"{who}: the gradient at `{path}` is {got}, the parameter {wanted}")
    if all(chosen):
        return columns, lambda values, _: tree.unflatten(structure, values)

    def restore(values: list[Any], whole: Params | None) -> Params:
        filled = iter(values)
        rest = [None] * len(chosen) if whole is None else tree.align(structure, params, whole, who)
        return tree.unflatten(structure, [next(filled) if c else old for c, old in zip(chosen, rest, strict=True)])

    return [[leaf for leaf, c in zip(column, chosen, strict=True) if c] for column in columns], restore

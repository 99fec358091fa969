"""Gradient accumulation: several small batches make one step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Step, Tree, Updates
from torchpure.optim.core import Optimizer, all_finite, check_count, count, gate, leafwise, moments, select, value_at

from ._conditional import sanitized

ShouldSkip = Callable[[Grads, Step, Params], tuple[Tensor, Tree]]


class MultiStepsState(NamedTuple):
    """State of `multi_steps`."""

    mini_step: Tensor  # how many gradients were gathered for the step to come: float64, shape ()
    step: Step  # how many steps were made: float64, shape ()
    inner_state: Any
    gathered: Params  # mean, or sum, of these gradients
    skip_state: Tree  # what `should_skip_update_fn` told last


def multi_steps(
    optimizer: Optimizer[Any],
    every_k_schedule: int | Tensor | Callable[[Step], Tensor],
    *,
    use_grad_mean: bool = True,
    should_skip_update_fn: ShouldSkip | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[MultiStepsState]:
    """Gather k gradients, and step once with their mean (their sum without `use_grad_mean`); zero updates meanwhile.

    `every_k_schedule` is k, or gives it for a step count. A gradient for which `should_skip_update_fn(grads, step,
    params)` says so is not gathered: `skip_not_finite`, or `skip_large_updates`, its limit bound by a lambda.
    Law: k calls with the gradients of k equal parts of a batch move as one call with the gradient of the whole.

    Raises:
        ValueError: k is not a whole number, at least 1.

    >>> from torchpure import optim
    >>> opt, params = multi_steps(optim.sgd(1.0), 2), torch.zeros(1)
    >>> params, state = opt.step(torch.tensor([1.0]), opt.init(params), params)
    >>> opt.step(torch.tensor([3.0]), state, params)[0]
    tensor([-2.])
    """
    if not callable(every_k_schedule):
        check_count("multi_steps", every_k_schedule=every_k_schedule)
    skips = should_skip_update_fn or never_skip

    def init(params: Params) -> MultiStepsState:
        zeros, step = moments(params), count(params)
        _, told = skips(zeros, step, params)
        return MultiStepsState(count(params), step, optimizer.init(params), moments(params, accumulator_dtype), told)

    def update(grads: Grads, state: MultiStepsState, params: Params, **extra: Any) -> tuple[Updates, MultiStepsState]:
        skip, told = skips(grads, state.step, params)
        number = state.mini_step + 1

        def gather(g: Tensor, total: Tensor, p: Any) -> tuple[Tensor, Tensor]:
            total = total + (g - total) / number if use_grad_mean else total + g
            return total, total

        mean, gathered = leafwise("multi_steps", gather, sanitized(~skip, grads), (state.gathered,), params)
        updates, inner_state = optimizer.update(tree.map(_like, mean, grads), state.inner_state, params, **extra)
        emit = ~skip & (number >= value_at(every_k_schedule, state.step))
        rest = select(skip, state.gathered, tree.map(lambda leaf: torch.where(emit, 0, leaf), gathered))
        mini_step = torch.where(skip, state.mini_step, torch.where(emit, 0, number))
        step = state.step + emit
        inner_state = select(emit, inner_state, state.inner_state)
        return gate(emit, updates), MultiStepsState(mini_step, step, inner_state, rest, told)

    return Optimizer(init, update, extra=optimizer.extra)


def _like(mean: Tensor, gradient: Tensor) -> Tensor:
    return mean.to(gradient.dtype)


def has_updated(state: MultiStepsState) -> Tensor:
    """Tell whether the last call of `multi_steps` made a step: bool, shape ()."""
    return (state.mini_step == 0) & (state.step > 0)


def never_skip(grads: Grads, step: Step, params: Params) -> tuple[Tensor, Tree]:
    """Gather every gradient."""
    return torch.zeros((), dtype=torch.bool, device=step.device), {}


def skip_not_finite(grads: Grads, step: Step, params: Params) -> tuple[Tensor, Tree]:
    """Skip gradients with an infinite entry or a NaN; for `multi_steps`."""
    skip = ~all_finite(grads)
    bad = [(~leaf.isfinite()).sum() for leaf in tree.leaves(grads)]
    number = torch.stack(bad).sum() if bad else torch.zeros((), dtype=torch.int64)
    return skip, {"should_skip": skip, "num_not_finite": number}


def skip_large_updates(
    grads: Grads, step: Step, params: Params, max_squared_norm: float | Tensor
) -> tuple[Tensor, Tree]:
    """Skip gradients whose squared norm over all leaves is not below a limit, NaN included; for `multi_steps`.

    >>> skip_large_updates(torch.tensor([3.0, 4.0]), torch.tensor(0.0), None, 24.0)[0]
    tensor(True)
    """
    square = tree.norm(grads).square()
    skip = ~(square < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": square}

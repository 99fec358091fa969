"""Gradient accumulation: one step for several small batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Step, Tree, Updates
from torchpure.optim.core import (
    Optimizer,
    all_finite,
    check_count,
    check_optimizer,
    evaluate_schedule,
    init_moments,
    init_step_count,
    leafwise,
    select,
    zero_grads,
    zero_unless,
)

ShouldSkip = Callable[[Grads, Step, Params], tuple[Tensor, Tree]]


class MultiStepsState(NamedTuple):
    """State of `multi_steps`."""

    mini_step: Tensor  # number of gradients accumulated for the next step: float64, shape ()
    step: Step  # number of steps made: float64, shape ()
    inner_state: Any
    gathered: Params  # mean or sum of these gradients
    skip_state: Tree  # second result of the last call of `should_skip_update_fn`


def multi_steps(
    optimizer: Optimizer[Any],
    every_k_schedule: int | Tensor | Callable[[Step], Tensor],
    *,
    use_grad_mean: bool = True,
    should_skip_update_fn: ShouldSkip | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[MultiStepsState]:
    """Accumulate k gradients, then step once with their mean; until then updates are zero.

    `every_k_schedule` is k, or a function from the step count to k. Without `use_grad_mean` the step is with the sum.
    `should_skip_update_fn(grads, step, params)` decides whether a gradient is left out. It may be `skip_not_finite`, or
    `skip_large_updates` with its limit bound by a lambda.
    Law: k calls with the gradients of k equal parts of a batch equal one call with the gradient of the whole batch.

    Raises:
        ValueError: k is not a whole number, at least 1.

    >>> from torchpure import optim
    >>> opt, params = multi_steps(optim.sgd(1.0), 2), torch.zeros(1)
    >>> params, state = opt.step(torch.tensor([1.0]), opt.init(params), params)
    >>> opt.step(torch.tensor([3.0]), state, params)[0]
    tensor([-2.])
    """
    check_optimizer("multi_steps", optimizer)
    if not callable(every_k_schedule):
        check_count("multi_steps", every_k_schedule=every_k_schedule)
    should_skip = should_skip_update_fn or never_skip

    def init(params: Params) -> MultiStepsState:
        mini_step, step = init_step_count(params), init_step_count(params)
        _, skip_state = should_skip(zero_grads(params), step, params)
        gathered = init_moments(params, accumulator_dtype)
        return MultiStepsState(mini_step, step, optimizer.init(params), gathered, skip_state)

    def update(grads: Grads, state: MultiStepsState, params: Params, **extra: Any) -> tuple[Updates, MultiStepsState]:
        skip, skip_state = should_skip(grads, state.step, params)
        number = state.mini_step + 1

        def accumulate(g: Tensor, total: Tensor, p: Any) -> tuple[Tensor, Tensor]:
            total = total + (g - total) / number if use_grad_mean else total + g
            return total, total

        mean, gathered = leafwise("multi_steps", accumulate, zero_unless(~skip, grads), (state.gathered,), params)
        mean = tree.map(_cast_to_gradient, mean, grads)
        updates, inner_state = optimizer.update(mean, state.inner_state, params, **extra)
        is_last = ~skip & (number >= evaluate_schedule(every_k_schedule, state.step))
        next_gathered = select(skip, state.gathered, tree.map(lambda leaf: torch.where(is_last, 0, leaf), gathered))
        mini_step = torch.where(skip, state.mini_step, torch.where(is_last, 0, number))
        step = state.step + is_last
        inner_state = select(is_last, inner_state, state.inner_state)
        return zero_unless(is_last, updates), MultiStepsState(mini_step, step, inner_state, next_gathered, skip_state)

    return Optimizer(init, update, extra=optimizer.extra)


def _cast_to_gradient(mean: Tensor, gradient: Tensor) -> Tensor:
    return mean.to(gradient.dtype)


def has_updated(state: MultiStepsState) -> Tensor:
    """Return whether the last call of `multi_steps` made a step: bool, shape ().

    >>> from torchpure.optim import sgd
    >>> optimizer = multi_steps(sgd(0.1), 2)
    >>> _, state = optimizer.update(torch.ones(1), optimizer.init(torch.ones(1)), torch.ones(1))
    >>> has_updated(state)
    tensor(False)
    """
    return (state.mini_step == 0) & (state.step > 0)


def never_skip(grads: Grads, step: Step, params: Params) -> tuple[Tensor, Tree]:
    """Accumulate every gradient."""
    return torch.zeros((), dtype=torch.bool, device=step.device), {}


def skip_not_finite(grads: Grads, step: Step, params: Params) -> tuple[Tensor, Tree]:
    """Skip gradients with an infinite or NaN entry; for `multi_steps`.

    >>> from torchpure.optim import sgd
    >>> optimizer = multi_steps(sgd(0.1), 2, should_skip_update_fn=skip_not_finite)
    >>> skip_not_finite(torch.tensor([torch.nan]), torch.tensor(0), None)[0]
    tensor(True)
    """
    skip = ~all_finite(grads)
    bad = [(~leaf.isfinite()).sum() for leaf in tree.leaves(grads)]
    number = torch.stack(bad).sum() if bad else torch.zeros((), dtype=torch.int64)
    return skip, {"should_skip": skip, "num_not_finite": number}


def skip_large_updates(
    grads: Grads, step: Step, params: Params, max_squared_norm: float | Tensor
) -> tuple[Tensor, Tree]:
    """Skip gradients whose squared norm over all leaves is NaN or not below a limit; for `multi_steps`.

    >>> skip_large_updates(torch.tensor([3.0, 4.0]), torch.tensor(0.0), None, 24.0)[0]
    tensor(True)
    """
    square = tree.norm(grads).square()
    skip = ~(square < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": square}

"""Transformations under a condition. Both results are computed, so that the condition may be batched.

Gradients that are not used become zeros first: a NaN in the result that is dropped still makes derivatives NaN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import (
    Optimizer,
    all_finite,
    check_nonnegative,
    check_optimizer,
    init_scalar,
    init_step_count,
    select,
    zero_unless,
)

Condition = Callable[..., Tensor]


class ConditionalState(NamedTuple):
    """State of `conditionally_transform` and `conditionally_mask`."""

    step: Step  # float64, shape ()
    inner_state: Any


def conditionally_transform(
    inner: Optimizer[Any], should_transform_fn: Condition, *, extra: tuple[str, ...] = ()
) -> Optimizer[ConditionalState]:
    """Transform the updates if `should_transform_fn(step)` holds; else pass them on, and keep the inner state.

    `extra` names the keywords of `update` that are passed to the condition too.

    >>> from torchpure import optim
    >>> warm = conditionally_transform(optim.clip(1.0), lambda step: step < 10)
    >>> warm.update(torch.tensor([5.0]), warm.init(torch.zeros(1)), torch.zeros(1))[0]
    tensor([1.])
    """
    check_optimizer("conditionally_transform", inner)
    return _conditional(
        inner, should_transform_fn, extra, lambda applies, updates, grads: select(applies, updates, grads)
    )


def conditionally_mask(
    inner: Optimizer[Any], should_transform_fn: Condition, *, extra: tuple[str, ...] = ()
) -> Optimizer[ConditionalState]:
    """Transform the updates if `should_transform_fn(step)` holds; else make them zero, and keep the inner state.

    >>> from torchpure import optim
    >>> late = conditionally_mask(optim.sgd(1.0), lambda step: step >= 10)
    >>> late.update(torch.tensor([5.0]), late.init(torch.zeros(1)), torch.zeros(1))[0]
    tensor([0.])
    """
    check_optimizer("conditionally_mask", inner)
    return _conditional(
        inner, should_transform_fn, extra, lambda applies, updates, grads: zero_unless(applies, updates)
    )


def _conditional(
    inner: Optimizer[Any], condition: Condition, extra: tuple[str, ...], choose: Callable[..., Updates]
) -> Optimizer[ConditionalState]:
    def update(grads: Grads, state: ConditionalState, params: Params, **given: Any) -> tuple[Updates, ConditionalState]:
        applies = condition(state.step, **{name: given[name] for name in extra})
        updates, inner_state = inner.update(zero_unless(applies, grads), state.inner_state, params, **given)
        inner_state = select(applies, inner_state, state.inner_state)
        return choose(applies, updates, grads), ConditionalState(state.step + 1, inner_state)

    return Optimizer(
        lambda params: ConditionalState(init_step_count(params), inner.init(params)),
        update,
        extra=tuple(dict.fromkeys((*inner.extra, *extra))),
    )


class ApplyIfFiniteState(NamedTuple):
    """State of `apply_if_finite`."""

    notfinite_count: Tensor  # number of gradients in a row that were not finite: int64, shape ()
    last_finite: Tensor  # whether the last gradients were finite: bool, shape ()
    total_notfinite: Tensor  # number of gradients that were not finite: int64, shape ()
    inner_state: Any


def apply_if_finite(inner: Optimizer[Any], max_consecutive_errors: int) -> Optimizer[ApplyIfFiniteState]:
    """Skip steps whose gradients are not all finite, but at most `max_consecutive_errors` in a row.

    After that many, updates are applied even if gradients are not finite.

    Raises:
        ValueError: `max_consecutive_errors` is negative.

    >>> from torchpure import optim
    >>> opt, params = apply_if_finite(optim.sgd(1.0), 3), torch.zeros(1)
    >>> opt.step(torch.tensor([float("nan")]), opt.init(params), params)[0]
    tensor([0.])
    """
    check_optimizer("apply_if_finite", inner)
    check_nonnegative("apply_if_finite", max_consecutive_errors=max_consecutive_errors)
    check_optimizer("apply_if_finite", inner)

    def init(params: Params) -> ApplyIfFiniteState:
        counts = [init_scalar(0, params, torch.int64) for _ in range(2)]
        return ApplyIfFiniteState(counts[0], init_scalar(True, params, torch.bool), counts[1], inner.init(params))

    def update(
        grads: Grads, state: ApplyIfFiniteState, params: Params, **extra: Any
    ) -> tuple[Updates, ApplyIfFiniteState]:
        finite = all_finite(grads)
        in_a_row = torch.where(finite, 0, state.notfinite_count + 1)
        applies = finite | (in_a_row > max_consecutive_errors)
        updates, inner_state = inner.update(zero_unless(applies, grads), state.inner_state, params, **extra)
        inner_state = select(applies, inner_state, state.inner_state)
        total = state.total_notfinite + ~finite
        return zero_unless(applies, updates), ApplyIfFiniteState(in_a_row, finite, total, inner_state)

    return Optimizer(init, update, extra=inner.extra)

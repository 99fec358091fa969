"""Transformations under a condition. Both outcomes are computed and one is chosen, so that all of it can be batched."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import Optimizer, all_finite, check_positive, count, gate, scalar, select

Condition = Callable[..., Tensor]


class ConditionalState(NamedTuple):
    """State of `conditionally_transform` and `conditionally_mask`."""

    step: Step  # float64, shape ()
    inner_state: Any


def conditionally_transform(
    inner: Optimizer[Any], should_transform_fn: Condition, *, extra: tuple[str, ...] = ()
) -> Optimizer[ConditionalState]:
    """Transform where `should_transform_fn(step)` holds; else updates pass through and the inner state stays.

    `extra` names the keywords of `update` that the condition takes too.

    >>> from torchpure import optim
    >>> warm = conditionally_transform(optim.clip(1.0), lambda step: step < 10)
    >>> warm.update(torch.tensor([5.0]), warm.init(torch.zeros(1)), torch.zeros(1))[0]
    tensor([1.])
    """
    return _conditional(inner, should_transform_fn, extra, lambda fits, updates, grads: select(fits, updates, grads))


def conditionally_mask(
    inner: Optimizer[Any], should_transform_fn: Condition, *, extra: tuple[str, ...] = ()
) -> Optimizer[ConditionalState]:
    """Transform where `should_transform_fn(step)` holds; else updates are zero and the inner state stays.

    >>> from torchpure import optim
    >>> late = conditionally_mask(optim.sgd(1.0), lambda step: step >= 10)
    >>> late.update(torch.tensor([5.0]), late.init(torch.zeros(1)), torch.zeros(1))[0]
    tensor([0.])
    """
    return _conditional(inner, should_transform_fn, extra, lambda fits, updates, grads: gate(fits, updates))


def _conditional(
    inner: Optimizer[Any], condition: Condition, extra: tuple[str, ...], choose: Callable[..., Updates]
) -> Optimizer[ConditionalState]:
    def update(grads: Grads, state: ConditionalState, params: Params, **given: Any) -> tuple[Updates, ConditionalState]:
        fits = condition(state.step, **{name: given[name] for name in extra})
        updates, inner_state = inner.update(sanitized(fits, grads), state.inner_state, params, **given)
        inner_state = select(fits, inner_state, state.inner_state)
        return choose(fits, updates, grads), ConditionalState(state.step + 1, inner_state)

    return Optimizer(
        lambda params: ConditionalState(count(params), inner.init(params)),
        update,
        extra=tuple(dict.fromkeys((*inner.extra, *extra))),
    )


class ApplyIfFiniteState(NamedTuple):
    """State of `apply_if_finite`."""

    notfinite_count: Tensor  # how many in a row were not finite: int64, shape ()
    last_finite: Tensor  # bool, shape ()
    total_notfinite: Tensor  # int64, shape ()
    inner_state: Any


def apply_if_finite(inner: Optimizer[Any], max_consecutive_errors: int) -> Optimizer[ApplyIfFiniteState]:
    """Skip updates whose gradients are not all finite; after `max_consecutive_errors` in a row let them through.

    Raises:
        ValueError: `max_consecutive_errors` is negative.

    >>> from torchpure import optim
    >>> opt, params = apply_if_finite(optim.sgd(1.0), 3), torch.zeros(1)
    >>> opt.step(torch.tensor([float("nan")]), opt.init(params), params)[0]
    tensor([0.])
    """
    check_positive("apply_if_finite", max_consecutive_errors=max_consecutive_errors)

    def init(params: Params) -> ApplyIfFiniteState:
        counts = [scalar(0, params, torch.int64) for _ in range(2)]
        return ApplyIfFiniteState(counts[0], scalar(True, params, torch.bool), counts[1], inner.init(params))

    def update(
        grads: Grads, state: ApplyIfFiniteState, params: Params, **extra: Any
    ) -> tuple[Updates, ApplyIfFiniteState]:
        finite = all_finite(grads)
        in_a_row = torch.where(finite, 0, state.notfinite_count + 1)
        applies = finite | (in_a_row > max_consecutive_errors)
        updates, inner_state = inner.update(sanitized(applies, grads), state.inner_state, params, **extra)
        inner_state = select(applies, inner_state, state.inner_state)
        total = state.total_notfinite + ~finite
        return gate(applies, updates), ApplyIfFiniteState(in_a_row, finite, total, inner_state)

    return Optimizer(init, update, extra=inner.extra)


def sanitized(applies: Tensor, grads: Grads) -> Grads:
    """Make gradients zero where they are not used: a NaN of the branch not taken would spoil every derivative."""
    return tree.map(lambda leaf: torch.where(applies, leaf, 0), grads)

"""Accumulation of updates over k steps."""

from typing import NamedTuple

import torch

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import Number, Optimizer, check_count, init_moments, init_step_count, leafwise, zero_unless


class ApplyEveryState(NamedTuple):
    """State of `apply_every`."""

    step: Step  # float64, shape ()
    total: Params  # sum of the updates since the last sum was applied


def apply_every(k: Number = 1, *, accumulator_dtype: torch.dtype | None = None) -> Optimizer[ApplyEveryState]:
    """Accumulate updates, and apply their sum at every k-th step; at other steps updates are zero.

    The other parts of a chain still process each gradient. To split a large batch, use `multi_steps`.

    Raises:
        ValueError: `k` is not a whole number, at least 1.

    >>> import torch
    >>> every, params = apply_every(2), torch.zeros(1)
    >>> _, state = every.update(torch.tensor([1.0]), every.init(params), params)
    >>> every.update(torch.tensor([2.0]), state, params)[0]
    tensor([3.])
    """
    check_count("apply_every", k=k)

    def update(grads: Grads, state: ApplyEveryState, params: Params) -> tuple[Updates, ApplyEveryState]:
        position = state.step % k

        def rule(g, total, p):
            total = g + (position != 0) * total
            return total, total

        updates, total = leafwise("apply_every", rule, grads, (state.total,), params)
        return zero_unless(position == k - 1, updates), ApplyEveryState(state.step + 1, total)

    return Optimizer(
        lambda params: ApplyEveryState(init_step_count(params), init_moments(params, accumulator_dtype)), update
    )

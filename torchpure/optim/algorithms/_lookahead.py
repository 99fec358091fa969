"""Lookahead (Zhang et al. 2019, arXiv:1907.08610, algorithm 1)."""

from typing import Any, NamedTuple

import torch

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_count,
    check_optimizer,
    init_average,
    init_step_count,
    leafwise,
    select,
)


class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    step: Step  # float64, shape ()
    fast_state: Any
    slow: Params  # the slow weights, for evaluation


def lookahead(
    fast_optimizer: Optimizer[Any],
    *,
    sync_period: Number = 6,
    slow_step_size: Number = 0.5,
    reset_state: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[LookaheadState]:
    """Synchronise fast and slow weights every `sync_period` steps: φ ← φ + slow_step_size (θ − φ), then θ ← φ.

    The parameters are the fast weights θ, which `fast_optimizer` updates. The slow weights φ are in the state. With
    `reset_state`, each synchronisation also resets the state of the fast optimizer.

    Raises:
        ValueError: `sync_period` is not a whole number, at least 1.

    >>> from torchpure import optim
    >>> opt, params = lookahead(optim.sgd(1.0), sync_period=1), torch.zeros(1)
    >>> opt.step(torch.tensor([-1.0]), opt.init(params), params)[0]
    tensor([0.5000])
    """
    check_optimizer("lookahead", fast_optimizer)
    check_count("lookahead", sync_period=sync_period)

    def init(params: Params) -> LookaheadState:
        slow = init_average(params, accumulator_dtype)
        return LookaheadState(init_step_count(params), fast_optimizer.init(params), slow)

    def update(grads: Grads, state: LookaheadState, params: Params, **extra: Any) -> tuple[Updates, LookaheadState]:
        updates, fast_state = fast_optimizer.update(grads, state.fast_state, params, **extra)
        step = state.step + 1
        is_sync = step % sync_period == 0

        def rule(u, slow, p):
            next_slow = slow + slow_step_size * (p + u - slow)
            return torch.where(is_sync, next_slow - p, u), torch.where(is_sync, next_slow, slow)

        updates, slow = leafwise("lookahead", rule, updates, (state.slow,), params)
        if reset_state:
            fast_state = select(is_sync, fast_optimizer.init(params), fast_state)
        return updates, LookaheadState(step, fast_state, slow)

    return Optimizer(init, update, extra=fast_optimizer.extra)

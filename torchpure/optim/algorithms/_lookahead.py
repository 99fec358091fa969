"""Lookahead (Zhang et al. 2019, arXiv:1907.08610, algorithm 1)."""

from typing import Any, NamedTuple

import torch

from torchpure import tree
from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import Number, Optimizer, check_count, count, has_gradient, leafwise, select


class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    step: Step  # float64, shape ()
    fast_state: Any
    slow: Params  # the slow weights, those to evaluate with


def lookahead(
    fast_optimizer: Optimizer[Any], *, sync_period: Number = 6, slow_step_size: Number = 0.5, reset_state: bool = False
) -> Optimizer[LookaheadState]:
    """Every `sync_period` steps move slow weights a part of the way to the fast ones, and set the fast ones back there.

    φ ← φ + slow_step_size (θ − φ), θ ← φ. The parameters that are stepped are the fast ones; the slow ones are in the
    state. With `reset_state` the fast optimizer starts anew at each synchronisation.

    Raises:
        ValueError: `sync_period` is not a whole number, at least 1.

    >>> from torchpure import optim
    >>> opt, params = lookahead(optim.sgd(1.0), sync_period=1), torch.zeros(1)
    >>> opt.step(torch.tensor([-1.0]), opt.init(params), params)[0]
    tensor([0.5000])
    """
    check_count("lookahead", sync_period=sync_period)

    def init(params: Params) -> LookaheadState:
        slow = tree.map(lambda leaf: leaf.clone() if has_gradient(leaf) else None, params)
        return LookaheadState(count(params), fast_optimizer.init(params), slow)

    def update(grads: Grads, state: LookaheadState, params: Params, **extra: Any) -> tuple[Updates, LookaheadState]:
        updates, fast_state = fast_optimizer.update(grads, state.fast_state, params, **extra)
        step = state.step + 1
        sync = step % sync_period == 0

        def rule(u, slow, p):
            ahead = slow + slow_step_size * (p + u - slow)
            return torch.where(sync, ahead - p, u), torch.where(sync, ahead, slow)

        updates, slow = leafwise("lookahead", rule, updates, (state.slow,), params)
        if reset_state:
            fast_state = select(sync, fast_optimizer.init(params), fast_state)
        return updates, LookaheadState(step, fast_state, slow)

    return Optimizer(init, update, extra=fast_optimizer.extra)

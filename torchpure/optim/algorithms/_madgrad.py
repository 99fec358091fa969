"""MADGRAD (Defazio and Jelassi 2021, arXiv:2101.11075, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_positive,
    check_scalar,
    copies,
    count,
    leafwise,
    moments,
    value_at,
)
from torchpure.optim.transformations import add_decayed_weights


class MadgradState(NamedTuple):
    """State of `madgrad`."""

    step: Step  # float64, shape ()
    square: Params  # weighted sum of the squared gradients
    total: Params  # weighted sum of the gradients
    start: Params  # the first parameters


def madgrad(
    learning_rate: ScalarOrSchedule, *, momentum: Number = 0.9, weight_decay: ScalarOrSchedule = 0.0, eps: Number = 1e-6
) -> Optimizer[tuple[Any, ...]]:
    """Average the points of dual averaging: p ← momentum p + (1 − momentum) (p₀ − s / (∛v + eps)).

    s and v sum λ g and λ g², λ = (learning_rate + eps) √t; weight_decay · p is added to the gradient first.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = madgrad(1.0, momentum=0.0, eps=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([8.0]), opt.init(params), params)[0]
    tensor([-1.])
    """
    check_scalar("madgrad", learning_rate)
    check_positive("madgrad", momentum=momentum, eps=eps)

    def init(params: Params) -> MadgradState:
        start = copies(params)
        return MadgradState(count(params), moments(params), moments(params), start)

    def update(grads: Grads, state: MadgradState, params: Params) -> tuple[Updates, MadgradState]:
        weight = (value_at(learning_rate, state.step) + eps) * (state.step + 1) ** 0.5

        def rule(g: Tensor, v: Tensor, s: Tensor, start: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            v, s = v + weight * g.square(), s + weight * g
            some = v > 0
            root = torch.where(some, torch.where(some, v, 1) ** (1 / 3), 0)  # its derivative at 0 is infinite
            under = root + eps
            goal = start - torch.where(under > 0, s / torch.where(under > 0, under, 1), 0)
            return (1 - momentum) * (goal - p), v, s, start.clone()

        updates, *states = leafwise("madgrad", rule, grads, state[1:], params)
        return updates, MadgradState(state.step + 1, *states)

    return chain(add_decayed_weights(weight_decay), Optimizer(init, update))

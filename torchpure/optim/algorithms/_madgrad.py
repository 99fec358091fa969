"""MADGRAD (Defazio and Jelassi 2021, arXiv:2101.11075, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    check_scalar_or_schedule,
    copy_params,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    leafwise,
)
from torchpure.optim.transformations import add_decayed_weights


class MadgradState(NamedTuple):
    """State of `madgrad`."""

    step: Step  # float64, shape ()
    square: Params  # weighted sum of the squared gradients
    total: Params  # weighted sum of the gradients
    start: Params  # the initial parameters


@hint_torch_keywords
def madgrad(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: Number = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: Number = 1e-6,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with MADGRAD: p ← momentum p + (1 − momentum) (p₀ − s / (∛v + eps)).

    p₀ are the initial parameters. s and v are the sums of λ g and λ g², with λ = (learning_rate + eps) √t.
    weight_decay · p is added to the gradient first.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = madgrad(1.0, momentum=0.0, eps=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([8.0]), opt.init(params), params)[0]
    tensor([-1.])
    """
    check_scalar_or_schedule("madgrad", learning_rate)
    check_nonnegative("madgrad", momentum=momentum, eps=eps)

    def init(params: Params) -> MadgradState:
        start = copy_params(params)
        return MadgradState(
            init_step_count(params),
            init_moments(params, accumulator_dtype),
            init_moments(params, accumulator_dtype),
            start,
        )

    def update(grads: Grads, state: MadgradState, params: Params) -> tuple[Updates, MadgradState]:
        weight = (evaluate_schedule(learning_rate, state.step) + eps) * (state.step + 1) ** 0.5

        def rule(g: Tensor, v: Tensor, s: Tensor, start: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            v, s = v + weight * g.square(), s + weight * g
            is_positive = v > 0
            # the derivative of the cube root at 0 is infinite
            root = torch.where(is_positive, torch.where(is_positive, v, 1) ** (1 / 3), 0)
            denominator = root + eps
            target = start - torch.where(denominator > 0, s / torch.where(denominator > 0, denominator, 1), 0)
            return (1 - momentum) * (target - p), v, s, start.clone()

        updates, *states = leafwise("madgrad", rule, grads, state[1:], params)
        return updates, MadgradState(state.step + 1, *states)

    return chain(add_decayed_weights(weight_decay), Optimizer(init, update))

"""Averaged gradient descent (Polyak and Juditsky 1992), with the formulas of torch.optim.ASGD."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    check_scalar_or_schedule,
    evaluate_schedule,
    hint_torch_keywords,
    init_average,
    init_step_count,
    leafwise,
)


class AsgdState(NamedTuple):
    """State of `asgd`."""

    step: Step  # float64, shape ()
    average: Params  # mean of the parameters, for evaluation


@hint_torch_keywords
def asgd(
    learning_rate: ScalarOrSchedule,
    *,
    lambd: Number = 1e-4,
    alpha: Number = 0.75,
    t0: Number = 1e6,
    weight_decay: ScalarOrSchedule = 0.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AsgdState]:
    """Step with averaged gradient descent: p ← (1 − lambd η) p − η (g + weight_decay p).

    η = learning_rate / (1 + lambd learning_rate (t − 1))^alpha. From step t0 on, `state.average` is the mean of the
    parameters; before, it is the parameters.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = asgd(0.1, lambd=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    check_scalar_or_schedule("asgd", learning_rate)
    check_nonnegative("asgd", lambd=lambd, alpha=alpha, t0=t0)
    check_scalar_or_schedule("asgd", weight_decay, "weight_decay")

    def init(params: Params) -> AsgdState:
        return AsgdState(init_step_count(params), init_average(params, accumulator_dtype))

    def update(grads: Grads, state: AsgdState, params: Params) -> tuple[Updates, AsgdState]:
        decay = evaluate_schedule(weight_decay, state.step)
        lr = evaluate_schedule(learning_rate, state.step)
        eta = lr / (1 + lambd * lr * state.step) ** alpha
        weight = 1 / torch.clamp(state.step - t0, min=1)

        def rule(g: Tensor, average: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            u = -lambd * eta * p - eta * (g + decay * p)
            return u, average + weight * (p + u - average)

        updates, average = leafwise("asgd", rule, grads, (state.average,), params)
        return updates, AsgdState(state.step + 1, average)

    return Optimizer(init, update)

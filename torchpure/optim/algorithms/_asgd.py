"""Averaged gradient descent (Polyak and Juditsky 1992), with the steps that torch.optim.ASGD takes."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import Number, Optimizer, check_positive, check_scalar, copies, count, leafwise, value_at


class AsgdState(NamedTuple):
    """State of `asgd`."""

    step: Step  # float64, shape ()
    average: Params  # of the parameters, for evaluation


def asgd(
    learning_rate: ScalarOrSchedule,
    *,
    lambd: Number = 1e-4,
    alpha: Number = 0.75,
    t0: Number = 1e6,
    weight_decay: Number = 0.0,
) -> Optimizer[AsgdState]:
    """Step along the gradient with a falling learning rate η, and average the points.

    p ← (1 − lambd η) p − η (g + weight_decay p), η = learning_rate / (1 + lambd learning_rate (t − 1))^alpha. From
    step t0 on the state's `average` is the mean of the parameters; before, it is the parameters.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = asgd(0.1, lambd=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    check_scalar("asgd", learning_rate)
    check_positive("asgd", lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay)

    def init(params: Params) -> AsgdState:
        return AsgdState(count(params), copies(params))

    def update(grads: Grads, state: AsgdState, params: Params) -> tuple[Updates, AsgdState]:
        lr = value_at(learning_rate, state.step)
        eta = lr / (1 + lambd * lr * state.step) ** alpha
        share = 1 / torch.clamp(state.step - t0, min=1)

        def rule(g: Tensor, average: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            u = -lambd * eta * p - eta * (g + weight_decay * p)
            return u, average + share * (p + u - average)

        updates, average = leafwise("asgd", rule, grads, (state.average,), params)
        return updates, AsgdState(state.step + 1, average)

    return Optimizer(init, update)

"""Stochastic gradient descent (Robbins and Monro 1951), with momentum (Polyak 1964) or Nesterov momentum (1983).

The formulas are those of torch.optim.SGD, after Sutskever et al. 2013, section 2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active_leaves,
    check_nonnegative,
    check_scalar_or_schedule,
    check_unit_interval,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    is_zero,
    scalar_like,
    sgd_kernels,
    undo_sgd,
)


class SgdState(NamedTuple):
    """State of `sgd`."""

    step: Step  # float64, shape ()
    momentum: Params | None  # decaying sum of the gradients; None without momentum


@hint_torch_keywords
def sgd(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: Number = 0.0,
    nesterov: bool = False,
    dampening: Number = 0.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[SgdState]:
    """Step with gradient descent and momentum: b ← momentum b + g, p ← p − learning_rate b.

    With `nesterov`, p ← p − learning_rate (g + momentum b). With `dampening`, b ← momentum b + (1 − dampening) g after
    the first step, as in torch. b has the dtype `accumulator_dtype`, by default that of its parameter, at least
    float32.

    Raises:
        ValueError: `learning_rate` or `dampening` is negative, `momentum` is not in [0, 1), or `nesterov` is combined
            with dampening or without momentum.

    >>> opt = sgd(0.1)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    check_scalar_or_schedule("sgd", learning_rate)
    check_unit_interval("sgd", momentum=momentum)
    with_momentum = isinstance(momentum, torch.Tensor) or momentum > 0
    if nesterov and not with_momentum:
        raise ValueError("sgd: nesterov needs a momentum greater than 0")
    check_nonnegative("sgd", dampening=dampening)
    if nesterov and not (is_zero(dampening) or isinstance(dampening, Tensor)):  # an injected 0 is a tensor
        raise ValueError("sgd: nesterov needs a dampening of 0")

    def init(params: Params) -> SgdState:
        return SgdState(init_step_count(params), init_moments(params, accumulator_dtype) if with_momentum else None)

    def update(grads: Grads, state: SgdState, params: Params) -> tuple[Updates, SgdState]:
        lr = evaluate_schedule(learning_rate, state.step)
        (g, *rest, _), rebuild = active_leaves("sgd", grads, (state.momentum,) if with_momentum else (), params)
        if not with_momentum:
            return rebuild(tree.scale(g, -lr)), SgdState(state.step + 1, None)
        damped = g if is_zero(dampening) else tree.scale(g, _grad_weight(dampening, state.step))
        b = tree.add(tree.scale(rest[0], momentum), damped)
        direction = tree.add(g, tree.scale(b, momentum)) if nesterov else b
        return rebuild(tree.scale(direction, -lr)), SgdState(state.step + 1, rebuild(b, state.momentum))

    if accumulator_dtype is not None or not is_zero(dampening):
        return Optimizer(init, update)
    kernel, donated = sgd_kernels(learning_rate, momentum, nesterov)
    undo = undo_sgd(learning_rate, momentum) if with_momentum and not nesterov else None
    return Optimizer(init, update, kernel, donated=donated, undo=undo)


def _grad_weight(dampening: Number, step: Step) -> Tensor:
    """Return the weight of a gradient in the sum: 1 at the first step, else 1 − dampening."""
    return 1 - torch.where(step == 0, 0, scalar_like(dampening, like=step))

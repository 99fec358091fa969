"""Stochastic gradient descent (Robbins and Monro 1951), with momentum (Polyak 1964) and Nesterov's (1983) look ahead.

The momentum is that of Sutskever et al. 2013, section 2, as torch.optim.SGD writes it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active,
    check_positive,
    check_scalar,
    check_unit,
    count,
    is_zero,
    moments,
    number,
    sgd_kernels,
    value_at,
)


class SgdState(NamedTuple):
    """State of `sgd`."""

    step: Step  # float64, shape ()
    momentum: Params | None  # decaying sum of the gradients; None without momentum


def sgd(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: Number = 0.0,
    nesterov: bool = False,
    dampening: Number = 0.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[SgdState]:
    """Step against the gradient: b ← momentum b + g, p ← p − learning_rate b.

    With `nesterov` the step is along g + momentum b. With `dampening`, torch's, gradients after the first come into the
    sum b times 1 − dampening. The sum has the dtype `accumulator_dtype`, else its parameter's.

    Raises:
        ValueError: `learning_rate` or `dampening` is negative, `momentum` not in [0, 1), or `nesterov` without
            momentum or with dampening.

    >>> opt = sgd(0.1)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    check_scalar("sgd", learning_rate)
    check_unit("sgd", momentum=momentum)
    with_momentum = isinstance(momentum, torch.Tensor) or momentum > 0
    if nesterov and not with_momentum:
        raise ValueError("sgd: nesterov needs a momentum greater than 0")
    check_positive("sgd", dampening=dampening)
    if nesterov and not is_zero(dampening):
        raise ValueError("sgd: nesterov needs a dampening of 0")

    def init(params: Params) -> SgdState:
        return SgdState(count(params), moments(params, accumulator_dtype) if with_momentum else None)

    def update(grads: Grads, state: SgdState, params: Params) -> tuple[Updates, SgdState]:
        lr = value_at(learning_rate, state.step)
        (g, *rest, _), restore = active("sgd", grads, (state.momentum,) if with_momentum else (), params)
        if not with_momentum:
            return restore(tree.scale(g, -lr)), SgdState(state.step + 1, None)
        fresh = g if is_zero(dampening) else tree.scale(g, _share(dampening, state.step))
        b = tree.add(tree.scale(rest[0], momentum), fresh)
        direction = tree.add(g, tree.scale(b, momentum)) if nesterov else b
        return restore(tree.scale(direction, -lr)), SgdState(state.step + 1, restore(b, state.momentum))

    if accumulator_dtype is not None or not is_zero(dampening):
        return Optimizer(init, update)
    kernel, donated = sgd_kernels(learning_rate, momentum, nesterov)
    return Optimizer(init, update, kernel, donated=donated)


def _share(dampening: Number, step: Step) -> Tensor:
    """Return the part of a gradient that comes into the sum: all of the first."""
    return 1 - torch.where(step == 0, 0, number(dampening, like=step))

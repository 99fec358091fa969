"""Optimistic descent (Mokhtari, Ozdaglar and Pattathil 2019, arXiv:1901.08511).

With Adam: Daskalakis et al. 2017, arXiv:1711.00141, algorithm 1.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    leafwise,
)
from torchpure.optim.transformations import scale_by_learning_rate

from ._adam import scale_by_adam


class OptimisticState(NamedTuple):
    """State of `scale_by_optimistic_gradient`."""

    step: Step  # float64, shape ()
    last: Params  # the last gradients


@hint_torch_keywords
def scale_by_optimistic_gradient(
    *, alpha: Number = 1.0, beta: Number = 1.0, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[OptimisticState]:
    """Extrapolate the gradient: u = (alpha + beta) g − beta g₋₁. At the first step g₋₁ is g.

    Raises:
        ValueError: `alpha` or `beta` is negative.

    >>> optimistic, params = scale_by_optimistic_gradient(), torch.tensor([1.0])
    >>> optimistic.update(torch.tensor([3.0]), optimistic.init(params), params)[0]
    tensor([3.])
    """
    check_nonnegative("scale_by_optimistic_gradient", alpha=alpha, beta=beta)

    def update(grads: Grads, state: OptimisticState, params: Params) -> tuple[Updates, OptimisticState]:
        def rule(g: Tensor, last: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            previous = torch.where(state.step == 0, g, last)
            return (alpha + beta) * g - beta * previous, g.clone()

        updates, last = leafwise("scale_by_optimistic_gradient", rule, grads, (state.last,), params)
        return updates, OptimisticState(state.step + 1, last)

    return Optimizer(
        lambda params: OptimisticState(init_step_count(params), init_moments(params, accumulator_dtype)), update
    )


@hint_torch_keywords
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Number = 1.0,
    beta: Number = 1.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with optimistic gradient descent: p ← p − learning_rate ((alpha + beta) g − beta g₋₁).

    Raises:
        ValueError: a number is negative.

    >>> opt, params = optimistic_gradient_descent(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([3.0]), opt.init(params), params)[0]
    tensor([0.7000])
    """
    return chain(
        scale_by_optimistic_gradient(alpha=alpha, beta=beta, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )


@hint_torch_keywords
def optimistic_adam(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Number = 1.0,
    beta: Number = 1.0,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    nesterov: bool = True,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with optimistic Adam: p ← p − learning_rate ((alpha + beta) u − beta u₋₁), with u of `scale_by_adam`.

    This is optax's `optimistic_adam_v2`.

    Raises:
        ValueError: a number is negative, or `b1` or `b2` not in [0, 1).

    >>> opt, params = optimistic_adam(0.1, nesterov=False), torch.tensor([1.0])
    >>> opt.step(torch.tensor([3.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(
        scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root, nesterov=nesterov, accumulator_dtype=accumulator_dtype),
        scale_by_optimistic_gradient(alpha=alpha, beta=beta, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )

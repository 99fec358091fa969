"""Fromage (Bernstein, Vahdat, Yue and Liu 2020, arXiv:2002.03432, algorithm 1)."""

from typing import NamedTuple

from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    check_scalar_or_schedule,
    evaluate_schedule,
    hint_torch_keywords,
    init_step_count,
    leafwise,
)
from torchpure.optim.transformations import trust_ratio


class FromageState(NamedTuple):
    """State of `fromage`."""

    step: Step  # float64, shape ()


@hint_torch_keywords
def fromage(learning_rate: ScalarOrSchedule, *, min_norm: Number = 1e-6) -> Optimizer[FromageState]:
    """Step with Fromage: p ← (p − learning_rate ‖p‖ g / ‖g‖) / √(1 + learning_rate²).

    The norms are those of each leaf, at least `min_norm`.

    Raises:
        ValueError: `learning_rate` or `min_norm` is negative.

    >>> import torch
    >>> opt, params = fromage(0.75), torch.tensor([3.0, 4.0])
    >>> opt.step(torch.tensor([1.0, 0.0]), opt.init(params), params)[0]
    tensor([-0.6000,  3.2000])
    """
    check_scalar_or_schedule("fromage", learning_rate)
    check_nonnegative("fromage", min_norm=min_norm)

    def update(grads: Grads, state: FromageState, params: Params) -> tuple[Updates, FromageState]:
        lr = evaluate_schedule(learning_rate, state.step)
        scale = (1 + lr**2) ** -0.5

        def rule(g: Tensor, p: Tensor) -> Tensor:
            return (scale - 1) * p - scale * lr * g * trust_ratio(g, p, min_norm, 1.0, 0.0)

        return leafwise("fromage", rule, grads, (), params), FromageState(state.step + 1)

    return Optimizer(lambda params: FromageState(init_step_count(params)), update)

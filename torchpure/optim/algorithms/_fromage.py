"""Fromage (Bernstein, Vahdat, Yue and Liu 2020, arXiv:2002.03432, algorithm 1)."""

from typing import NamedTuple

from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import Number, Optimizer, check_positive, check_scalar, count, leafwise, value_at
from torchpure.optim.transformations import trust_ratio


class FromageState(NamedTuple):
    """State of `fromage`."""

    step: Step  # float64, shape ()


def fromage(learning_rate: ScalarOrSchedule, *, min_norm: Number = 1e-6) -> Optimizer[FromageState]:
    """Turn each leaf by an angle.

    p ← (p − learning_rate ‖p‖ g / ‖g‖) / √(1 + learning_rate²), norms at least `min_norm`

    Raises:
        ValueError: `learning_rate` or `min_norm` is negative.

    >>> import torch
    >>> opt, params = fromage(0.75), torch.tensor([3.0, 4.0])
    >>> opt.step(torch.tensor([1.0, 0.0]), opt.init(params), params)[0]
    tensor([-0.6000,  3.2000])
    """
    check_scalar("fromage", learning_rate)
    check_positive("fromage", min_norm=min_norm)

    def update(grads: Grads, state: FromageState, params: Params) -> tuple[Updates, FromageState]:
        lr = value_at(learning_rate, state.step)
        shrink = (1 + lr**2) ** -0.5

        def rule(g: Tensor, p: Tensor) -> Tensor:
            return (shrink - 1) * p - shrink * lr * g * trust_ratio(g, p, min_norm, 1.0, 0.0)

        return leafwise("fromage", rule, grads, (), params), FromageState(state.step + 1)

    return Optimizer(lambda params: FromageState(count(params)), update)

"""Rectified Adam (Liu et al. 2019, arXiv:1908.03265, algorithm 2)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    bias,
    blend,
    check_positive,
    check_unit,
    count,
    leafwise,
    moments,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate


class RadamState(NamedTuple):
    """State of `scale_by_radam`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares


def scale_by_radam(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: float = 5.0,
    eps_on_corrected: bool = True,
) -> Optimizer[RadamState]:
    """Step as Adam, r m̂ / (√(v̂ + eps_root) + eps), once the variance of its denominator is finite; along m̂ before.

    r = √((ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ)), ρ∞ = 2 / (1 − b2) − 1, ρ = ρ∞ − 2 t b2ᵗ / (1 − b2ᵗ), from
    ρ ≥ threshold on. That is optax's; with `eps_on_corrected=False` eps is added to √v before it is corrected, as in
    torch.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> radam, params = scale_by_radam(), torch.tensor([1.0])
    >>> radam.update(torch.tensor([2.0]), radam.init(params), params)[0]
    tensor([2.])
    """
    check_unit("scale_by_radam", b1=b1, b2=b2)
    check_positive("scale_by_radam", eps=eps, eps_root=eps_root)
    limit = 2.0 / (1.0 - b2) - 1.0

    def update(grads: Grads, state: RadamState, params: Params) -> tuple[Updates, RadamState]:
        step = state.step + 1
        first, second = bias(b1, step), bias(b2, step)
        length = limit - 2 * step * b2**step / second
        ready = length >= threshold
        used = torch.where(ready, length, threshold)  # what is not used must not be the root of a negative number
        r = safe_sqrt((used - 4) * (used - 2) * limit / ((limit - 4) * (limit - 2) * used))

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m, v = blend(m, g, b1), blend(v, g.square(), b2)
            if eps_on_corrected:
                under = safe_sqrt(v / second + eps_root) + eps
            else:
                under = (safe_sqrt(v) + eps) / safe_sqrt(second)
            return torch.where(ready, r * (m / first) / under, m / first), m, v

        updates, mean, square = leafwise("scale_by_radam", rule, grads, (state.mean, state.square), params)
        return updates, RadamState(step, mean, square)

    return Optimizer(lambda params: RadamState(count(params), moments(params), moments(params)), update)


def radam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: float = 5.0,
    eps_on_corrected: bool = True,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_radam` says, times −learning_rate.

    Raises:
        ValueError: `learning_rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = radam(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    scaled = scale_by_radam(
        b1=b1, b2=b2, eps=eps, eps_root=eps_root, threshold=threshold, eps_on_corrected=eps_on_corrected
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))

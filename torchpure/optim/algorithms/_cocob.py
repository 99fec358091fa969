"""COCOB-Backprop (Orabona and Tommasi 2017, arXiv:1705.07795, algorithm 2): coin betting for each entry."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    check_nonnegative,
    check_scalar_or_schedule,
    copy_params,
    hint_torch_keywords,
    init_moments,
    leafwise,
    safe_divide,
)
from torchpure.optim.transformations import add_decayed_weights, scale, scale_by_schedule


class CocobState(NamedTuple):
    """State of `scale_by_cocob`."""

    start: Params  # the initial parameters
    total: Params  # sum of the negative gradients
    largest: Params  # largest absolute value of the gradients
    sizes: Params  # sum of the absolute values of the gradients
    reward: Params  # gain of the bets, at least 0


@hint_torch_keywords
def scale_by_cocob(
    *, alpha: Number = 100.0, eps: Number = 1e-8, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[CocobState]:
    """Move to p₀ + θ (L + R) / (L max(G + L, alpha L)), where p₀ are the initial parameters.

    θ is the sum of −g, G the sum of |g|, and L the largest |g|, at least eps. The reward is R ← max(R − g (p − p₀), 0).

    Raises:
        ValueError: `alpha` or `eps` is negative.

    >>> bets, params = scale_by_cocob(alpha=1.0), torch.tensor([1.0])
    >>> bets.update(torch.tensor([2.0]), bets.init(params), params)[0]
    tensor([-0.5000])
    """
    check_nonnegative("scale_by_cocob", alpha=alpha, eps=eps)

    def rule(g: Tensor, start: Tensor, total: Tensor, largest: Tensor, sizes: Tensor, reward: Tensor, p: Tensor) -> Any:
        largest, sizes = torch.maximum(largest, g.abs()), sizes + g.abs()
        reward = (reward - g * (p - start)).clamp(min=0)
        total = total - g
        bet = safe_divide(total, largest * torch.maximum(sizes + largest, alpha * largest))
        target = start + bet * (largest + reward)
        return target - p, start.clone(), total, largest, sizes, reward

    def init(params: Params) -> CocobState:
        start = copy_params(params)
        return CocobState(
            start,
            init_moments(params, accumulator_dtype),
            init_moments(params, accumulator_dtype, value=eps),
            init_moments(params, accumulator_dtype),
            init_moments(params, accumulator_dtype),
        )

    def update(grads: Grads, state: CocobState, params: Params) -> tuple[Updates, CocobState]:
        updates, *states = leafwise("scale_by_cocob", rule, grads, tuple(state), params)
        return updates, CocobState(*states)

    return Optimizer(init, update)


@hint_torch_keywords
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    alpha: Number = 100.0,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with COCOB. The learning rate scales the gradient: `scale_by_cocob` gets learning_rate (g + weight_decay p).

    This is the formula of optax.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = cocob(alpha=1.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.5000])
    """
    check_scalar_or_schedule("cocob", learning_rate)
    times = scale_by_schedule(learning_rate) if callable(learning_rate) else scale(learning_rate)
    return chain(
        add_decayed_weights(weight_decay, mask=mask),
        times,
        scale_by_cocob(alpha=alpha, eps=eps, accumulator_dtype=accumulator_dtype),
    )

"""AdaBelief (Zhuang et al. 2020, arXiv:2010.07468, algorithm 2)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    bias_correction,
    check_nonnegative,
    check_unit_interval,
    ema_update,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate


class BeliefState(NamedTuple):
    """State of `scale_by_belief`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squared distance from it


@hint_torch_keywords
def scale_by_belief(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-16,
    eps_root: Number = 1e-16,
    nesterov: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[BeliefState]:
    """Divide the mean gradient by the root of its mean squared error: u = m̂ / (√ŝ + eps).

    m ← b1 m + (1 − b1) g, s ← b2 s + (1 − b2) (g − m)² + eps_root, m̂ = m / (1 − b1ᵗ), ŝ = s / (1 − b2ᵗ). With
    `nesterov`, as in optax, m̂ = b1 m / (1 − b1ᵗ⁺¹) + (1 − b1) g / (1 − b1ᵗ).

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> import torch
    >>> belief, params = scale_by_belief(b1=0.5), torch.tensor([1.0])
    >>> belief.update(torch.tensor([2.0]), belief.init(params), params)[0]
    tensor([2.])
    """
    check_unit_interval("scale_by_belief", b1=b1, b2=b2)
    check_nonnegative("scale_by_belief", eps=eps, eps_root=eps_root)

    def update(grads: Grads, state: BeliefState, params: Params) -> tuple[Updates, BeliefState]:
        step = state.step + 1
        correction1, next_correction1, correction2 = (
            bias_correction(b1, step),
            bias_correction(b1, step + 1),
            bias_correction(b2, step),
        )

        def rule(g: Tensor, m: Tensor, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m = ema_update(m, g, b1)
            s = ema_update(s, (g - m).square(), b2) + eps_root
            mean = b1 * (m / next_correction1) + (1 - b1) * (g / correction1) if nesterov else m / correction1
            return mean / (safe_sqrt(s / correction2) + eps), m, s

        updates, mean, square = leafwise("scale_by_belief", rule, grads, (state.mean, state.square), params)
        return updates, BeliefState(step, mean, square)

    return Optimizer(
        lambda params: BeliefState(
            init_step_count(params), init_moments(params, accumulator_dtype), init_moments(params, accumulator_dtype)
        ),
        update,
    )


@hint_torch_keywords
def adabelief(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-16,
    eps_root: Number = 1e-16,
    nesterov: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with AdaBelief: p ← p − learning_rate u, with u of `scale_by_belief`.

    Raises:
        ValueError: `learning_rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> import torch
    >>> opt, params = adabelief(0.1, b1=0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    scaled = scale_by_belief(
        b1=b1, b2=b2, eps=eps, eps_root=eps_root, nesterov=nesterov, accumulator_dtype=accumulator_dtype
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))

"""Rectified Adam (Liu et al. 2019, arXiv:1908.03265, algorithm 2)."""

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


class RadamState(NamedTuple):
    """State of `scale_by_radam`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares


@hint_torch_keywords
def scale_by_radam(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: float = 5.0,
    eps_on_corrected: bool = True,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[RadamState]:
    """Scale with rectified Adam: u = r m̂ / (√(v̂ + eps_root) + eps) where ρ ≥ threshold, else u = m̂.

    r = √((ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ)), ρ∞ = 2 / (1 − b2) − 1, ρ = ρ∞ − 2 t b2ᵗ / (1 − b2ᵗ). m̂ and v̂ are
    those of Adam. This is the formula of optax. With `eps_on_corrected=False`, eps is added to √v before the bias
    correction, as in torch.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> radam, params = scale_by_radam(), torch.tensor([1.0])
    >>> radam.update(torch.tensor([2.0]), radam.init(params), params)[0]
    tensor([2.])
    """
    check_unit_interval("scale_by_radam", b1=b1, b2=b2)
    check_nonnegative("scale_by_radam", eps=eps, eps_root=eps_root)
    limit = 2.0 / (1.0 - b2) - 1.0

    def update(grads: Grads, state: RadamState, params: Params) -> tuple[Updates, RadamState]:
        step = state.step + 1
        correction1, correction2 = bias_correction(b1, step), bias_correction(b2, step)
        rho = limit - 2 * step * b2**step / correction2
        is_rectified = rho >= threshold
        safe_rho = torch.where(is_rectified, rho, threshold)  # the root of a negative number would be NaN
        r = safe_sqrt((safe_rho - 4) * (safe_rho - 2) * limit / ((limit - 4) * (limit - 2) * safe_rho))

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m, v = ema_update(m, g, b1), ema_update(v, g.square(), b2)
            if eps_on_corrected:
                denominator = safe_sqrt(v / correction2 + eps_root) + eps
            else:
                denominator = (safe_sqrt(v) + eps) / safe_sqrt(correction2)
            return torch.where(is_rectified, r * (m / correction1) / denominator, m / correction1), m, v

        updates, mean, square = leafwise("scale_by_radam", rule, grads, (state.mean, state.square), params)
        return updates, RadamState(step, mean, square)

    return Optimizer(
        lambda params: RadamState(
            init_step_count(params), init_moments(params, accumulator_dtype), init_moments(params, accumulator_dtype)
        ),
        update,
    )


@hint_torch_keywords
def radam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: float = 5.0,
    eps_on_corrected: bool = True,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with rectified Adam: p ← p − learning_rate u, with u of `scale_by_radam`.

    Raises:
        ValueError: `learning_rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = radam(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    scaled = scale_by_radam(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        threshold=threshold,
        eps_on_corrected=eps_on_corrected,
        accumulator_dtype=accumulator_dtype,
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))

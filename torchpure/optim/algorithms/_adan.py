"""Adan (Xie, Zhou, Li, Lin and Yan 2022, arXiv:2208.06677, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
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
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate


class AdanState(NamedTuple):
    """State of `scale_by_adan`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    change: Params  # running mean of their differences
    square: Params  # running mean of the squared extrapolated gradients g + (1 − b2) (g − g₋₁)
    last: Params  # the last gradients


@hint_torch_keywords
def scale_by_adan(
    *,
    b1: Number = 0.98,
    b2: Number = 0.92,
    b3: Number = 0.99,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AdanState]:
    """Divide the sum of two means by a root mean square: u = (m̂ + (1 − b2) v̂) / (√(n̂ + eps_root) + eps).

    With b1, b2 and b3, m, v and n are running means of g, of g − g₋₁ and of (g + (1 − b2) (g − g₋₁))². m̂, v̂ and n̂ are
    bias-corrected as in Adam. The paper writes 1 − b for each b.

    Raises:
        ValueError: `b1`, `b2` or `b3` is not in [0, 1), `eps` or `eps_root` negative.

    >>> adan, params = scale_by_adan(), torch.tensor([1.0])
    >>> adan.update(torch.tensor([2.0]), adan.init(params), params)[0]
    tensor([1.])
    """
    check_unit_interval("scale_by_adan", b1=b1, b2=b2, b3=b3)
    check_nonnegative("scale_by_adan", eps=eps, eps_root=eps_root)

    def init(params: Params) -> AdanState:
        return AdanState(init_step_count(params), *(init_moments(params, accumulator_dtype) for _ in range(4)))

    def update(grads: Grads, state: AdanState, params: Params) -> tuple[Updates, AdanState]:
        step = state.step + 1
        correction1, correction2, correction3 = (
            bias_correction(b1, step),
            bias_correction(b2, step),
            bias_correction(b3, step),
        )

        def rule(g: Tensor, m: Tensor, v: Tensor, n: Tensor, last: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            change = torch.where(state.step == 0, 0, g - last)
            m, v = ema_update(m, g, b1), ema_update(v, change, b2)
            n = ema_update(n, (g + (1 - b2) * change).square(), b3)
            return (
                (m / correction1 + (1 - b2) * (v / correction2)) / (safe_sqrt(n / correction3 + eps_root) + eps),
                m,
                v,
                n,
                g.clone(),
            )

        updates, *states = leafwise("scale_by_adan", rule, grads, state[1:], params)
        return updates, AdanState(step, *states)

    return Optimizer(init, update)


@hint_torch_keywords
def adan(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.98,
    b2: Number = 0.92,
    b3: Number = 0.99,
    eps: Number = 1e-8,
    eps_root: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with Adan: p ← p − learning_rate (u + weight_decay p), with u of `scale_by_adan`.

    The weight decay is that of optax. The paper's formula is different.

    Raises:
        ValueError: `b1`, `b2` or `b3` is not in [0, 1), or another number is negative.

    >>> opt, params = adan(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(
        scale_by_adan(b1=b1, b2=b2, b3=b3, eps=eps, eps_root=eps_root, accumulator_dtype=accumulator_dtype),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

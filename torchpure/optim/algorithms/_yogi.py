"""Yogi (Zaheer, Reddi, Sachan, Kale and Kumar 2018, "Adaptive methods for nonconvex optimization", algorithm 2)."""

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
    hint_torch_keywords,
    init_moments,
    init_step_count,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate


class YogiState(NamedTuple):
    """State of `scale_by_yogi`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # a mean of their squares that changes slowly


@hint_torch_keywords
def scale_by_yogi(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-3,
    eps_root: Number = 0.0,
    initial_accumulator_value: float = 1e-6,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[YogiState]:
    """Divide the mean gradient by the root of a slowly changing mean square: u = m̂ / (√(v̂ + eps_root) + eps).

    v ← v − (1 − b2) sign(v − g²) g², so v changes by at most (1 − b2) g². As in optax, m and v start at
    `initial_accumulator_value`, and have the bias correction of Adam.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> yogi, params = scale_by_yogi(), torch.tensor([1.0])
    >>> yogi.update(torch.tensor([2.0]), yogi.init(params), params)[0].round(decimals=2)
    tensor([1.])
    """
    check_unit_interval("scale_by_yogi", b1=b1, b2=b2)
    check_nonnegative("scale_by_yogi", eps=eps, eps_root=eps_root)

    def init(params: Params) -> YogiState:
        start = init_moments(params, accumulator_dtype, value=initial_accumulator_value)
        return YogiState(
            init_step_count(params), start, init_moments(params, accumulator_dtype, value=initial_accumulator_value)
        )

    def update(grads: Grads, state: YogiState, params: Params) -> tuple[Updates, YogiState]:
        step = state.step + 1
        correction1, correction2 = bias_correction(b1, step), bias_correction(b2, step)

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m, square = b1 * m + (1 - b1) * g, g.square()
            v = v - (1 - b2) * torch.sign(v - square) * square
            return (m / correction1) / (safe_sqrt(v / correction2 + eps_root) + eps), m, v

        updates, mean, square = leafwise("scale_by_yogi", rule, grads, (state.mean, state.square), params)
        return updates, YogiState(step, mean, square)

    return Optimizer(init, update)


@hint_torch_keywords
def yogi(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-3,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with Yogi: p ← p − learning_rate u, with u of `scale_by_yogi`.

    Raises:
        ValueError: `learning_rate` or `eps` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = yogi(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0].round(decimals=3)
    tensor([0.9000])
    """
    return chain(
        scale_by_yogi(b1=b1, b2=b2, eps=eps, accumulator_dtype=accumulator_dtype), scale_by_learning_rate(learning_rate)
    )

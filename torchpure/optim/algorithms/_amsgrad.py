"""AMSGrad (Reddi, Kale and Kumar 2018, arXiv:1904.09237, algorithm 2)."""

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


class AmsgradState(NamedTuple):
    """State of `scale_by_amsgrad`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares
    largest: Params  # largest mean square so far


@hint_torch_keywords
def scale_by_amsgrad(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_after_max: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AmsgradState]:
    """Divide the mean gradient by the root of the largest mean square so far: u = m̂ / (√(max v̂ + eps_root) + eps).

    m̂ and v̂ are those of Adam. This is the formula of optax. With `correct_after_max` it is that of torch's
    `Adam(amsgrad=True)`: the maximum is over v, and is bias-corrected afterwards.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> ams, params = scale_by_amsgrad(), torch.tensor([1.0])
    >>> ams.update(torch.tensor([2.0]), ams.init(params), params)[0]
    tensor([1.])
    """
    check_unit_interval("scale_by_amsgrad", b1=b1, b2=b2)
    check_nonnegative("scale_by_amsgrad", eps=eps, eps_root=eps_root)

    def init(params: Params) -> AmsgradState:
        return AmsgradState(
            init_step_count(params),
            init_moments(params, mu_dtype or accumulator_dtype),
            init_moments(params, accumulator_dtype),
            init_moments(params, accumulator_dtype),
        )

    def update(grads: Grads, state: AmsgradState, params: Params) -> tuple[Updates, AmsgradState]:
        step = state.step + 1
        correction1 = bias_correction(b1, step) if bias_correction_mu else 1.0
        correction2 = bias_correction(b2, step) if bias_correction_nu else 1.0

        def rule(g: Tensor, m: Tensor, v: Tensor, largest: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            m, v = ema_update(m, g, b1), ema_update(v, g.square(), b2)
            largest = torch.maximum(largest, v if correct_after_max else v / correction2)
            used = largest / correction2 if correct_after_max else largest
            return (m / correction1) / (safe_sqrt(used + eps_root) + eps), m, v, largest

        updates, *states = leafwise("scale_by_amsgrad", rule, grads, state[1:], params)
        return updates, AmsgradState(step, *states)

    return Optimizer(init, update)


@hint_torch_keywords
def amsgrad(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    correct_after_max: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with AMSGrad: p ← p − learning_rate u, with u of `scale_by_amsgrad`.

    Raises:
        ValueError: `learning_rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = amsgrad(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = scale_by_amsgrad(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        correct_after_max=correct_after_max,
        accumulator_dtype=accumulator_dtype,
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))

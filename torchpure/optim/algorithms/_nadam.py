"""Adam with Nesterov momentum (Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2).

optax's form has a constant b1. torch's form, with `momentum_decay`, has the paper's schedule, in which b1 increases.
"""

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
    init_scalar,
    init_step_count,
    is_zero,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

from ._adam import scale_by_adam


class NadamState(NamedTuple):
    """State of `scale_by_nadam`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares
    product: Tensor  # Πₜ, the product of the momenta so far; float64, shape ()


@hint_torch_keywords
def scale_by_nadam(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    momentum_decay: Number = 4e-3,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[NadamState]:
    """Scale like torch.optim.NAdam: u = (μₜ₊₁ m / (1 − Πₜ₊₁) + (1 − μₜ) g / (1 − Πₜ)) / (√v̂ + eps).

    The momentum is μₜ = b1 (1 − 0.96^(t momentum_decay) / 2), and Πₜ = μ₁ ⋯ μₜ. m and v̂ are those of Adam.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), or `eps` or `momentum_decay` is negative.

    >>> nadam, params = scale_by_nadam(b1=0.0), torch.tensor([1.0])
    >>> nadam.update(torch.tensor([2.0]), nadam.init(params), params)[0]
    tensor([1.])
    """
    check_unit_interval("scale_by_nadam", b1=b1, b2=b2)
    check_nonnegative("scale_by_nadam", eps=eps, momentum_decay=momentum_decay)

    def momentum(step: Step) -> Tensor:
        return b1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))

    def init(params: Params) -> NadamState:
        return NadamState(
            init_step_count(params),
            init_moments(params, accumulator_dtype),
            init_moments(params, accumulator_dtype),
            init_scalar(1.0, params),
        )

    def update(grads: Grads, state: NadamState, params: Params) -> tuple[Updates, NadamState]:
        step = state.step + 1
        momentum_now, momentum_next = momentum(step), momentum(step + 1)
        product = state.product * momentum_now

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m, v = ema_update(m, g, b1), ema_update(v, g.square(), b2)
            direction = momentum_next / (1 - product * momentum_next) * m + (1 - momentum_now) / (1 - product) * g
            return direction / (safe_sqrt(v / bias_correction(b2, step)) + eps), m, v

        updates, mean, square = leafwise("scale_by_nadam", rule, grads, (state.mean, state.square), params)
        return updates, NadamState(step, mean, square, product)

    return Optimizer(init, update)


def _scaled(
    b1: Number,
    b2: Number,
    eps: Number,
    eps_root: Number,
    momentum_decay: Number | None,
    *,
    mu_dtype: torch.dtype | None,
    accumulator_dtype: torch.dtype | None,
) -> Optimizer[Any]:
    options: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps, "accumulator_dtype": accumulator_dtype}
    if momentum_decay is None:
        return scale_by_adam(**options, eps_root=eps_root, mu_dtype=mu_dtype, nesterov=True)
    if mu_dtype is not None or not is_zero(eps_root):
        raise ValueError("nadam: torch's form, with momentum_decay, has neither eps_root nor mu_dtype")
    return scale_by_nadam(**options, momentum_decay=momentum_decay)


@hint_torch_keywords
def nadam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    momentum_decay: Number | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with NAdam: p ← p − learning_rate u, with u of `scale_by_adam(nesterov=True)`.

    This is optax's form. With `momentum_decay`, u is that of `scale_by_nadam`. This is torch's form, where
    momentum_decay is 4e-3 by default.

    Raises:
        ValueError: a number is out of its range, or `momentum_decay` is combined with `eps_root` or `mu_dtype`.

    >>> opt, params = nadam(0.1, b1=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = _scaled(b1, b2, eps, eps_root, momentum_decay, mu_dtype=mu_dtype, accumulator_dtype=accumulator_dtype)
    return chain(scaled, scale_by_learning_rate(learning_rate))


@hint_torch_keywords
def nadamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    momentum_decay: Number | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with NAdam and decoupled weight decay: p ← p − learning_rate (u + weight_decay p).

    u is that of `nadam`.

    Raises:
        ValueError: a number is out of its range, or `momentum_decay` is combined with `eps_root` or `mu_dtype`.

    >>> opt, params = nadamw(0.1, b1=0.0, weight_decay=0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    return chain(
        _scaled(b1, b2, eps, eps_root, momentum_decay, mu_dtype=mu_dtype, accumulator_dtype=accumulator_dtype),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

"""AdaMax (Kingma and Ba 2015, arXiv:1412.6980, algorithm 2), also with decoupled weight decay."""

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
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate


class AdamaxState(NamedTuple):
    """State of `scale_by_adamax`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    largest: Params  # decaying maximum of their absolute values


@hint_torch_keywords
def scale_by_adamax(
    *, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[AdamaxState]:
    """Divide the mean gradient by a decaying maximum: u = m̂ / v, with v ← max(b2 v, |g| + eps).

    m ← b1 m + (1 − b1) g and m̂ = m / (1 − b1ᵗ). torch and optax have the same formula.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), or `eps` negative.

    >>> adamax, params = scale_by_adamax(), torch.tensor([1.0])
    >>> adamax.update(torch.tensor([2.0]), adamax.init(params), params)[0]
    tensor([1.])
    """
    check_unit_interval("scale_by_adamax", b1=b1, b2=b2)
    check_nonnegative("scale_by_adamax", eps=eps)

    def update(grads: Grads, state: AdamaxState, params: Params) -> tuple[Updates, AdamaxState]:
        step = state.step + 1
        correction1 = bias_correction(b1, step)

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m, v = ema_update(m, g, b1), torch.maximum(b2 * v, g.abs() + eps)
            return (m / correction1) / v, m, v

        updates, mean, largest = leafwise("scale_by_adamax", rule, grads, (state.mean, state.largest), params)
        return updates, AdamaxState(step, mean, largest)

    return Optimizer(
        lambda params: AdamaxState(
            init_step_count(params), init_moments(params, accumulator_dtype), init_moments(params, accumulator_dtype)
        ),
        update,
    )


@hint_torch_keywords
def adamax(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with AdaMax: p ← p − learning_rate u, with u of `scale_by_adamax`.

    Raises:
        ValueError: `learning_rate` or `eps` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = adamax(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(
        scale_by_adamax(b1=b1, b2=b2, eps=eps, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )


@hint_torch_keywords
def adamaxw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with AdaMax and decoupled weight decay: p ← p − learning_rate (u + weight_decay p).

    u is that of `scale_by_adamax`.

    Raises:
        ValueError: `learning_rate`, `eps` or `weight_decay` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = adamaxw(0.1, weight_decay=0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    return chain(
        scale_by_adamax(b1=b1, b2=b2, eps=eps, accumulator_dtype=accumulator_dtype),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

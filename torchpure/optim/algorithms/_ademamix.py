"""AdEMAMix (Pagliardini, Ablin and Grangier 2024, arXiv:2409.03137, algorithm 1)."""

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
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate


class AdemamixState(NamedTuple):
    """State of `scale_by_ademamix`."""

    step: Step  # float64, shape ()
    fast: Params  # running mean of the gradients with b1
    slow: Params  # running mean of the gradients with b3
    square: Params  # running mean of their squares


@hint_torch_keywords
def scale_by_ademamix(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AdemamixState]:
    """Combine a fast and a slow mean of the gradients: u = (m̂₁ + alpha m₂) / (√(v̂ + eps_root) + eps).

    m₁ has the decay b1, m₂ has b3, and v has b2. m₂ has no bias correction. `b3` and `alpha` may be schedules.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> mixed, params = scale_by_ademamix(alpha=0.0), torch.tensor([1.0])
    >>> mixed.update(torch.tensor([2.0]), mixed.init(params), params)[0]
    tensor([1.])
    """
    check_unit_interval("scale_by_ademamix", b1=b1, b2=b2)
    check_nonnegative("scale_by_ademamix", eps=eps, eps_root=eps_root)

    def init(params: Params) -> AdemamixState:
        return AdemamixState(
            init_step_count(params), *(init_moments(params, mu_dtype or accumulator_dtype) for _ in range(3))
        )

    def update(grads: Grads, state: AdemamixState, params: Params) -> tuple[Updates, AdemamixState]:
        slow_decay, weight = evaluate_schedule(b3, state.step), evaluate_schedule(alpha, state.step)
        step = state.step + 1
        correction1, correction2 = bias_correction(b1, step), bias_correction(b2, step)

        def rule(g: Tensor, fast: Tensor, slow: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            fast, slow, v = ema_update(fast, g, b1), ema_update(slow, g, slow_decay), ema_update(v, g.square(), b2)
            return (fast / correction1 + weight * slow) / (safe_sqrt(v / correction2 + eps_root) + eps), fast, slow, v

        updates, *states = leafwise("scale_by_ademamix", rule, grads, state[1:], params)
        return updates, AdemamixState(step, *states)

    return Optimizer(init, update)


@hint_torch_keywords
def ademamix(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with AdEMAMix: p ← p − learning_rate (u + weight_decay p), with u of `scale_by_ademamix`.

    Raises:
        ValueError: `learning_rate`, `eps`, `eps_root` or `weight_decay` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = ademamix(0.1, alpha=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(
        scale_by_ademamix(
            b1=b1,
            b2=b2,
            b3=b3,
            alpha=alpha,
            eps=eps,
            eps_root=eps_root,
            mu_dtype=mu_dtype,
            accumulator_dtype=accumulator_dtype,
        ),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

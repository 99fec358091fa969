"""ADOPT (Taniguchi et al. 2024, arXiv:2411.02853, algorithm 2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    check_unit_interval,
    ema_update,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    leafwise,
    safe_sqrt,
    scalar_like,
)
from torchpure.optim.transformations import scale_by_learning_rate


class AdoptState(NamedTuple):
    """State of `scale_by_adopt`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the normalised gradients
    square: Params  # running mean of the squared gradients


def _fourth_root(step: Step) -> Tensor:
    return step**0.25


@hint_torch_keywords
def scale_by_adopt(
    *,
    b1: Number = 0.9,
    b2: Number = 0.9999,
    eps: Number = 1e-6,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Step], Tensor] = _fourth_root,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AdoptState]:
    """Average gradients divided by the previous root mean square: m ← b1 m + (1 − b1) g / max(√v₋₁, eps).

    The quotient is clipped to ±`clip_value_fn(t)`, by default the fourth root of the number t of steps made. The first
    step only sets v to g². With `nesterov`, u = b1 m + (1 − b1) g / max(√v₋₁, eps); else u = m.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), or `eps` negative.

    >>> adopt, params = scale_by_adopt(b1=0.0), torch.tensor([1.0])
    >>> _, state = adopt.update(torch.tensor([2.0]), adopt.init(params), params)
    >>> adopt.update(torch.tensor([1.0]), state, params)[0]
    tensor([0.5000])
    """
    check_unit_interval("scale_by_adopt", b1=b1, b2=b2)
    check_nonnegative("scale_by_adopt", eps=eps)

    def update(grads: Grads, state: AdoptState, params: Params) -> tuple[Updates, AdoptState]:
        is_first, bound = state.step == 0, clip_value_fn(state.step)

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            scaled = g / torch.maximum(safe_sqrt(v), scalar_like(eps, like=g))
            if use_clipping:
                scaled = scaled.clamp(min=-bound, max=bound)
            m = torch.where(is_first, m, ema_update(m, scaled, b1))
            u = torch.where(is_first, m, ema_update(m, scaled, b1)) if nesterov else m
            return u, m, torch.where(is_first, g.square(), ema_update(v, g.square(), b2))

        updates, mean, square = leafwise("scale_by_adopt", rule, grads, (state.mean, state.square), params)
        return updates, AdoptState(state.step + 1, mean, square)

    return Optimizer(
        lambda params: AdoptState(
            init_step_count(params),
            init_moments(params, mu_dtype or accumulator_dtype),
            init_moments(params, accumulator_dtype),
        ),
        update,
    )


@hint_torch_keywords
def adopt(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.9999,
    eps: Number = 1e-6,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Step], Tensor] = _fourth_root,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with ADOPT: p ← p − learning_rate u, with u of `scale_by_adopt`.

    Raises:
        ValueError: `learning_rate` or `eps` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = adopt(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([1.])
    """
    scaled = scale_by_adopt(
        b1=b1,
        b2=b2,
        eps=eps,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
        accumulator_dtype=accumulator_dtype,
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))

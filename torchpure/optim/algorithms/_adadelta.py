"""Adadelta (Zeiler 2012, arXiv:1212.5701, algorithm 1)."""

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
    check_unit_interval,
    ema_update,
    hint_torch_keywords,
    init_moments,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate


class AdadeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    square: Params  # running mean of the squared gradients
    change: Params  # running mean of the squared updates


@hint_torch_keywords
def scale_by_adadelta(
    *, rho: Number = 0.9, eps: Number = 1e-6, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[AdadeltaState]:
    """Scale gradients by the ratio of two root mean squares: u = √(x + eps) / √(v + eps) g.

    v is the running mean of g², and x that of u². Here v includes this step, and x does not.

    Raises:
        ValueError: `rho` is not in [0, 1), or `eps` negative.

    >>> import torch
    >>> adadelta, params = scale_by_adadelta(rho=0.0, eps=1.0), torch.tensor([1.0])
    >>> adadelta.update(torch.tensor([3.0]), adadelta.init(params), params)[0]
    tensor([0.9487])
    """
    check_unit_interval("scale_by_adadelta", rho=rho)
    check_nonnegative("scale_by_adadelta", eps=eps)

    def rule(g: Tensor, v: Tensor, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = ema_update(v, g.square(), rho)
        u = safe_sqrt(x + eps) / safe_sqrt(v + eps) * g
        return u, v, ema_update(x, u.square(), rho)

    def update(grads: Grads, state: AdadeltaState, params: Params) -> tuple[Updates, AdadeltaState]:
        updates, square, change = leafwise("scale_by_adadelta", rule, grads, tuple(state), params)
        return updates, AdadeltaState(square, change)

    return Optimizer(
        lambda params: AdadeltaState(init_moments(params, accumulator_dtype), init_moments(params, accumulator_dtype)),
        update,
    )


@hint_torch_keywords
def adadelta(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    rho: Number = 0.9,
    eps: Number = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with Adadelta: p ← p − learning_rate u, with u of `scale_by_adadelta`.

    As in torch and optax, weight_decay p is added to the gradient.

    Raises:
        ValueError: `learning_rate`, `eps` or `weight_decay` is negative, or `rho` not in [0, 1).

    >>> import torch
    >>> opt, params = adadelta(1.0, rho=0.0, eps=1.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([3.0]), opt.init(params), params)[0]
    tensor([0.0513])
    """
    return chain(
        add_decayed_weights(weight_decay, mask=weight_decay_mask),
        scale_by_adadelta(rho=rho, eps=eps, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )

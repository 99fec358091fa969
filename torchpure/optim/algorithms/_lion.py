"""Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    check_unit_interval,
    ema_update,
    hint_torch_keywords,
    init_moments,
    leafwise,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate


class LionState(NamedTuple):
    """State of `scale_by_lion`."""

    mean: Params  # running mean of the gradients


@hint_torch_keywords
def scale_by_lion(
    *,
    b1: Number = 0.9,
    b2: Number = 0.99,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[LionState]:
    """Take the sign of an interpolated mean gradient: u = sign(b1 m + (1 − b1) g), then m ← b2 m + (1 − b2) g.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1).

    >>> signs, params = scale_by_lion(), torch.zeros(2)
    >>> signs.update(torch.tensor([3.0, -0.1]), signs.init(params), params)[0]
    tensor([ 1., -1.])
    """
    check_unit_interval("scale_by_lion", b1=b1, b2=b2)

    def rule(g: Tensor, m: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sign(ema_update(m, g, b1)), ema_update(m, g, b2)

    def update(grads: Grads, state: LionState, params: Params) -> tuple[Updates, LionState]:
        updates, mean = leafwise("scale_by_lion", rule, grads, (state.mean,), params)
        return updates, LionState(mean)

    return Optimizer(lambda params: LionState(init_moments(params, mu_dtype or accumulator_dtype)), update)


@hint_torch_keywords
def lion(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.99,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with Lion: p ← p − learning_rate (sign(b1 m + (1 − b1) g) + weight_decay p).

    Then m ← b2 m + (1 − b2) g.

    Raises:
        ValueError: `learning_rate` or `weight_decay` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = lion(0.1, weight_decay=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(
        scale_by_lion(b1=b1, b2=b2, mu_dtype=mu_dtype, accumulator_dtype=accumulator_dtype),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )

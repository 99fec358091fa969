"""LAMB (You et al. 2019, arXiv:1904.00962, algorithm 2)."""

from typing import Any

import torch

from torchpure._types import ScalarOrSchedule
from torchpure.optim.combinators import chain
from torchpure.optim.core import Mask, Number, Optimizer, hint_torch_keywords
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate, scale_by_trust_ratio

from ._adam import scale_by_adam


@hint_torch_keywords
def lamb(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-6,
    eps_root: Number = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with LAMB: p ← p − learning_rate ‖p‖ u / ‖u‖, with u = m̂ / (√(v̂ + eps_root) + eps) + weight_decay p.

    m̂ and v̂ are those of Adam. The norms are those of each leaf.

    Raises:
        ValueError: `learning_rate`, `eps` or `weight_decay` is negative, `b1` or `b2` not in [0, 1).

    >>> import torch
    >>> opt, params = lamb(0.1), torch.tensor([3.0, 4.0])
    >>> opt.step(torch.tensor([1.0, 0.0]), opt.init(params), params)[0]
    tensor([2.5000, 4.0000])
    """
    return chain(
        scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root, accumulator_dtype=accumulator_dtype),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )

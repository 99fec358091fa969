"""LARS (You, Gitman and Ginsburg 2017, arXiv:1708.03888, algorithm 1)."""

from typing import Any

import torch

from torchpure._types import ScalarOrSchedule
from torchpure.optim.combinators import chain, masked
from torchpure.optim.core import Mask, Number, Optimizer, hint_torch_keywords
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate, scale_by_trust_ratio, trace


@hint_torch_keywords
def lars(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    trust_coefficient: Number = 0.001,
    eps: Number = 0.0,
    trust_ratio_mask: Mask = None,
    momentum: Number = 0.9,
    nesterov: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with LARS: gradient descent with momentum, and a learning rate for each leaf.

    The learning rate is learning_rate · trust_coefficient ‖p‖ / (‖g + weight_decay p‖ + eps). The masks select the
    leaves with weight decay and the leaves with a trust ratio; the default is all leaves.

    Raises:
        ValueError: a number is negative.

    >>> import torch
    >>> opt, params = lars(0.1, trust_coefficient=1.0), torch.tensor([3.0, 4.0])
    >>> opt.step(torch.tensor([1.0, 0.0]), opt.init(params), params)[0]
    tensor([2.5000, 4.0000])
    """
    ratio = scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps)
    return chain(
        add_decayed_weights(weight_decay, mask=weight_decay_mask),
        ratio if trust_ratio_mask is None else masked(ratio, trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov=nesterov, accumulator_dtype=accumulator_dtype),
    )

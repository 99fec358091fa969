"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2)."""

import torch

from torchpure._types import ScalarOrSchedule
from torchpure.optim.core import Mask, Number, Optimizer, adam_kernels, hint_torch_keywords, is_zero, undo_adam

from ._adam import AdamState, build_scale, descend


@hint_torch_keywords
def adamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-2,
    mask: Mask = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AdamState]:
    """Step with AdamW: p ← p − learning_rate (m̂ / (√(v̂ + eps_root) + eps) + weight_decay p).

    m̂ and v̂ are those of `adam`. The mask, that of `masked`, selects the leaves that decay; the default is all leaves.

    Raises:
        ValueError: `learning_rate`, `eps`, `eps_root` or `weight_decay` is negative, `b1` or `b2` not in [0, 1).

    >>> opt = adamw(0.1, weight_decay=0.5)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    scaled = build_scale("adamw", b1, b2, eps, eps_root, mu_dtype, nesterov=False, accumulator_dtype=accumulator_dtype)
    plain = (
        is_zero(eps_root)
        and mu_dtype is None
        and accumulator_dtype is None
        and mask is None
        and not callable(weight_decay)
    )
    if not plain:
        return descend("adamw", learning_rate, weight_decay, scaled, mask=mask)
    kernels = adam_kernels("adamw", learning_rate, b1, b2, eps, weight_decay)
    undo = undo_adam(learning_rate, b1, b2, eps, weight_decay)
    return descend("adamw", learning_rate, weight_decay, scaled, kernels, undo=undo)

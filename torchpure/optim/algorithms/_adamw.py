"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2)."""

import torch

from torchpure._types import Rate
from torchpure.optim.core import Number, Optimizer, adam_kernels, check_positive, is_zero

from ._adam import AdamState, build_scale, descend


def adamw(
    rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    decay: Number = 1e-2,
) -> Optimizer[AdamState]:
    """Step as `adam`, and shrink the parameters: p ← p − rate (m̂ / (√(v̂ + eps_root) + eps) + decay p).

    Raises:
        ValueError: `rate`, `eps`, `eps_root` or `decay` is negative, `b1` or `b2` not in [0, 1).

    >>> opt = adamw(0.1, decay=0.5)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    check_positive("adamw", decay=decay)
    scaled = build_scale("adamw", b1, b2, eps, eps_root, mu_dtype, nesterov=False)
    plain = is_zero(eps_root) and mu_dtype is None
    return descend("adamw", rate, decay, scaled, adam_kernels("adamw", rate, b1, b2, eps, decay) if plain else ())

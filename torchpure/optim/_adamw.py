"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2)."""

from torchpure._types import Rate

from ._adam import AdamState, build
from ._base import Optimizer


def adamw(
    rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, decay: float = 1e-2
) -> Optimizer[AdamState]:
    """Step as `adam`, and shrink the parameters: p ← p − rate (m̂ / (√v̂ + eps) + decay p).

    Raises:
        ValueError: `rate`, `eps` or `decay` is negative, `b1` or `b2` not in [0, 1).

    >>> import torch
    >>> opt = adamw(0.1, decay=0.5)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    return build("adamw", rate, b1, b2, eps, decay)

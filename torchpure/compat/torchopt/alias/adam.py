"""Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

from torchpure.compat.torchopt.combine import chain_flat
from torchpure.compat.torchopt.transform import (
    check_betas,
    check_learning_rate,
    check_nonnegative,
    scale_by_accelerated_adam,
    scale_by_adam,
)
from torchpure.compat.torchopt.typing import GradientTransformation, ScalarOrSchedule

from .utils import flip_sign_and_add_weight_decay, scale_by_neg_lr

__all__ = ["adam"]


def adam(
    lr: ScalarOrSchedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    eps_root: float = 0.0,
    moment_requires_grad: bool = False,
    maximize: bool = False,
    use_accelerated_op: bool = False,
) -> GradientTransformation:
    """Make the functional Adam: p ← p − lr m̂ / (√(v̂ + eps_root) + eps).

    >>> import torch
    >>> optimizer = adam(0.1)
    >>> params = (torch.tensor(1.0),)
    >>> optimizer.update((torch.tensor(2.0),), optimizer.init(params), inplace=False)[0]
    (tensor(-0.1000),)

    Raises:
        ValueError: a number is negative, or a beta not in [0, 1).
    """
    b1, b2 = betas
    check_learning_rate(lr)
    check_nonnegative(eps=eps, weight_decay=weight_decay)
    check_betas(b1, b2)
    scaler = scale_by_accelerated_adam if use_accelerated_op else scale_by_adam
    return chain_flat(
        flip_sign_and_add_weight_decay(weight_decay, maximize),
        scaler(b1, b2, eps, eps_root, moment_requires_grad),
        scale_by_neg_lr(lr),
    )

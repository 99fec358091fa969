"""Adamax (Kingma and Ba 2015, arXiv:1412.6980, section 7.1)."""

from torchpure.compat.torchopt.combine import chain_flat
from torchpure.compat.torchopt.transform import (
    check_closed_interval,
    check_learning_rate,
    check_nonnegative,
    scale_by_adamax,
)
from torchpure.compat.torchopt.typing import GradientTransformation, ScalarOrSchedule

from .utils import flip_sign_and_add_weight_decay, scale_by_neg_lr

__all__ = ["adamax"]


def adamax(
    lr: ScalarOrSchedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    *,
    moment_requires_grad: bool = False,
) -> GradientTransformation:
    """Make the functional Adamax: p ← p − lr m / ((1 − b1ᵗ) n), n the decayed maximum of |g|.

    Raises:
        ValueError: `lr`, `eps` or `weight_decay` is negative, or a beta not in [0, 1).
    """
    check_learning_rate(lr)
    b1, b2 = betas
    check_closed_interval(rho=b1)
    check_closed_interval(rho=b2)
    check_nonnegative(eps=eps, weight_decay=weight_decay)
    return chain_flat(
        flip_sign_and_add_weight_decay(weight_decay),
        scale_by_adamax(b1, b2, eps=eps, moment_requires_grad=moment_requires_grad),
        scale_by_neg_lr(lr),
    )

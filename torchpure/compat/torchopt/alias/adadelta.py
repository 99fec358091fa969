"""Adadelta (Zeiler 2012, arXiv:1212.5701)."""

from torchpure.compat.torchopt.combine import chain_flat
from torchpure.compat.torchopt.transform import (
    check_closed_interval,
    check_learning_rate,
    check_nonnegative,
    scale_by_adadelta,
)
from torchpure.compat.torchopt.typing import GradientTransformation, ScalarOrSchedule

from .utils import flip_sign_and_add_weight_decay, scale_by_neg_lr

__all__ = ["adadelta"]


def adadelta(
    lr: ScalarOrSchedule = 1e-3,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    *,
    moment_requires_grad: bool = False,
) -> GradientTransformation:
    """Make the functional Adadelta: p ← p − lr g √((n + eps) / (m + eps)).

    Raises:
        ValueError: `lr`, `eps` or `weight_decay` is negative, or `rho` not in [0, 1].
    """
    check_learning_rate(lr)
    check_closed_interval(rho=rho)
    check_nonnegative(eps=eps, weight_decay=weight_decay)
    return chain_flat(
        flip_sign_and_add_weight_decay(weight_decay),
        scale_by_adadelta(rho=rho, eps=eps, moment_requires_grad=moment_requires_grad),
        scale_by_neg_lr(lr),
    )

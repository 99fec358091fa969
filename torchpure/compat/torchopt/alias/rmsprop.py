"""RMSProp (Tieleman and Hinton 2012, Coursera lecture 6.5)."""

from torchpure.compat.torchopt.combine import chain_flat
from torchpure.compat.torchopt.transform import (
    check_learning_rate,
    check_nonnegative,
    scale_by_rms,
    scale_by_stddev,
    trace,
)
from torchpure.compat.torchopt.typing import GradientTransformation, ScalarOrSchedule

from .utils import flip_sign_and_add_weight_decay, scale_by_neg_lr

__all__ = ["rmsprop"]


def rmsprop(
    lr: ScalarOrSchedule = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    *,
    initial_scale: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> GradientTransformation:
    """Make the functional RMSProp: p ← p − lr g / (√n + eps), or with n − m² for n if `centered`.

    Raises:
        ValueError: a number is negative, or `nesterov` without momentum.
    """
    check_learning_rate(lr)
    check_nonnegative(alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)
    scaler = scale_by_stddev if centered else scale_by_rms
    return chain_flat(
        flip_sign_and_add_weight_decay(weight_decay, maximize),
        scaler(alpha, eps, initial_scale),
        trace(momentum, nesterov=nesterov),
        scale_by_neg_lr(lr),
    )

"""Gradient descent with momentum (Polyak 1964; Sutskever et al. 2013)."""

from torchpure.compat.torchopt.combine import chain_flat
from torchpure.compat.torchopt.transform import check_learning_rate, check_nesterov, check_nonnegative, trace
from torchpure.compat.torchopt.typing import GradientTransformation, ScalarOrSchedule

from .utils import flip_sign_and_add_weight_decay, scale_by_neg_lr

__all__ = ["sgd"]


def sgd(
    lr: ScalarOrSchedule,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    *,
    moment_requires_grad: bool = False,
    maximize: bool = False,
) -> GradientTransformation:
    """Make the functional SGD: p ← p − lr t, with t ← momentum t + (1 − dampening) g.

    Raises:
        ValueError: a number is negative, or `nesterov` without momentum or with dampening.
    """
    check_learning_rate(lr)
    check_nonnegative(momentum=momentum, weight_decay=weight_decay)
    check_nesterov(nesterov, momentum, dampening)
    return chain_flat(
        flip_sign_and_add_weight_decay(weight_decay, maximize),
        trace(momentum, dampening, nesterov, moment_requires_grad),
        scale_by_neg_lr(lr),
    )

"""AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2)."""

from collections.abc import Callable
from typing import Any

from torchpure.compat.torchopt.combine import chain, chain_flat
from torchpure.compat.torchopt.transform import (
    add_decayed_weights,
    check_betas,
    check_learning_rate,
    check_nonnegative,
    scale_by_accelerated_adam,
    scale_by_adam,
)
from torchpure.compat.torchopt.typing import GradientTransformation, ScalarOrSchedule

from .utils import flip_sign_and_add_weight_decay, scale_by_neg_lr

__all__ = ["adamw"]


def adamw(
    lr: ScalarOrSchedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    *,
    eps_root: float = 0.0,
    mask: Any | Callable[[Any], Any] | None = None,
    moment_requires_grad: bool = False,
    maximize: bool = False,
    use_accelerated_op: bool = False,
) -> GradientTransformation:
    """Make the functional AdamW: p ← p − lr (m̂ / (√(v̂ + eps_root) + eps) + weight_decay p).

    The mask selects the leaves that decay: a tree of bools, a prefix of one, or a function that makes one. A function
    gets the list of leaves. torchopt's masks raise an AttributeError.

    Raises:
        ValueError: a number is negative, or a beta not in [0, 1).
    """
    b1, b2 = betas
    check_learning_rate(lr)
    check_nonnegative(eps=eps, weight_decay=weight_decay)
    check_betas(b1, b2)
    scaler = scale_by_accelerated_adam if use_accelerated_op else scale_by_adam
    combine = chain_flat if mask is None or callable(mask) else chain  # the mask is a tree like the parameters
    return combine(
        flip_sign_and_add_weight_decay(0.0, maximize),
        scaler(b1, b2, eps, eps_root, moment_requires_grad),
        add_decayed_weights(weight_decay, mask),
        scale_by_neg_lr(lr),
    )

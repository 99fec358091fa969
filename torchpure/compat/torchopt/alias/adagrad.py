"""Adagrad (Duchi, Hazan and Singer 2011, JMLR 12)."""

from torchpure.compat.torchopt.combine import chain_flat
from torchpure.compat.torchopt.transform import check_learning_rate, check_nonnegative, scale_by_rss, scale_by_schedule
from torchpure.compat.torchopt.typing import GradientTransformation, ScalarOrSchedule

from .utils import flip_sign_and_add_weight_decay, scale_by_neg_lr

__all__ = ["adagrad"]


def adagrad(
    lr: ScalarOrSchedule = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """Make the functional Adagrad: p ← p − lr / (1 + lr_decay (t − 1)) g / (√s + eps), s the sum of g².

    Raises:
        ValueError: a number is negative.
    """
    check_learning_rate(lr)
    check_nonnegative(
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    decayed = [scale_by_schedule(lambda count: 1 / (1 + lr_decay * count))]
    return chain_flat(
        flip_sign_and_add_weight_decay(weight_decay, maximize),
        scale_by_rss(initial_accumulator_value, eps),
        *decayed,
        scale_by_neg_lr(lr),
    )

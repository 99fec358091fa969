"""The first and the last transformation of each optimizer."""

from typing import Any

from torch import Tensor

from torchpure.compat.torchopt.base import EmptyState, GradientTransformation, identity
from torchpure.compat.torchopt.transform import (
    Formula,
    add_decayed_weights,
    check_learning_rate,
    check_nonnegative,
    make_transformation,
    scale,
    scale_by_schedule,
)
from torchpure.compat.torchopt.typing import ScalarOrSchedule

__all__ = ["flip_sign_and_add_weight_decay", "scale_by_neg_lr"]


def flip_sign_and_add_weight_decay(weight_decay: float = 0.0, maximize: bool = False) -> GradientTransformation:
    """Add `weight_decay` times the parameter to the gradient, whose sign is flipped if `maximize`.

    >>> import torch
    >>> flip_sign_and_add_weight_decay(maximize=True).update((torch.tensor(1.0),), EmptyState())[0]
    (tensor(-1.),)
    """
    check_nonnegative(weight_decay=weight_decay)
    if not maximize:
        return identity() if weight_decay == 0.0 else add_decayed_weights(weight_decay)

    def leaf(grad: Tensor, param: Any) -> tuple[Tensor]:
        return (grad.neg() if weight_decay == 0.0 else grad.neg().add(param, alpha=weight_decay),)

    return make_transformation(
        lambda params: EmptyState(),
        Formula(
            lambda state: leaf,
            writes=True,
            needs_params=weight_decay != 0.0,
            constant=not isinstance(weight_decay, Tensor),
        ),
    )


def scale_by_neg_lr(lr: ScalarOrSchedule) -> GradientTransformation:
    """Multiply by −lr, or by −lr(count) of a schedule.

    Raises:
        ValueError: the rate is negative.
    """
    check_learning_rate(lr)
    return scale_by_schedule(lambda count: -lr(count)) if callable(lr) else scale(-lr)


def _flattened(function: Any) -> None:
    function.flat, function.impl = function, lambda *args, already_flattened=False, **kwargs: function(*args, **kwargs)


_flattened(flip_sign_and_add_weight_decay)
_flattened(scale_by_neg_lr)

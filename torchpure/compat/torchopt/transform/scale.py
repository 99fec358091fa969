"""Multiplication of updates by a number."""

from typing import Any

from torch import Tensor

from torchpure._torch import foreach_mul
from torchpure.compat.torchopt.base import EmptyState, GradientTransformation

from ._leafwise import Formula, make_transformation
from .utils import flattened

__all__ = ["scale"]

ScaleState = EmptyState


@flattened
def scale(step_size: float) -> GradientTransformation:
    """Multiply updates by a number, or by a tensor, which may require grad.

    >>> import torch
    >>> scale(0.5).update((torch.tensor(2.0),), ScaleState())[0]
    (tensor(1.),)
    """

    def leaf(grad: Tensor, param: Any) -> tuple[Tensor]:
        return (grad.mul(step_size),)

    return make_transformation(
        lambda params: ScaleState(),
        Formula(
            lambda state: leaf,
            writes=True,
            constant=not isinstance(step_size, Tensor),
            kernel=lambda state: lambda grads, params: (foreach_mul(grads, step_size),),
        ),
    )

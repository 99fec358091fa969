"""Replacement of NaNs and infinities in updates."""

from typing import Any

from torch import Tensor

from torchpure.compat.torchopt.base import EmptyState, GradientTransformation

from ._leafwise import Formula, make_transformation


def nan_to_num(nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> GradientTransformation:
    """Replace NaN, and infinities by the greatest or least number of the dtype if no other is given.

    >>> import torch
    >>> nan_to_num(1.0).update((torch.tensor(float("nan")),), EmptyState())[0]
    (tensor(1.),)
    """

    def leaf(grad: Tensor, param: Any) -> tuple[Tensor]:
        return (grad.nan_to_num(nan=nan, posinf=posinf, neginf=neginf),)

    return make_transformation(lambda params: EmptyState(), Formula(lambda state: leaf, writes=True))

"""RMSProp's scaling (Tieleman and Hinton 2012, Coursera lecture 6.5)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import GradientTransformation
from torchpure.optim.core import safe_sqrt

from ._checks import check_nonnegative
from ._leafwise import Formula, make_transformation
from .utils import flattened, moment

__all__ = ["scale_by_rms"]


class ScaleByRmsState(NamedTuple):
    """State of `scale_by_rms`."""

    nu: Any  # running mean of the squares of the gradients


@flattened
def scale_by_rms(alpha: float = 0.9, eps: float = 1e-8, initial_scale: float = 0.0) -> GradientTransformation:
    """Return g / (√n + eps) with n ← alpha n + (1 − alpha) g².

    Raises:
        ValueError: `alpha` or `eps` is negative.
    """
    check_nonnegative(alpha=alpha, eps=eps)

    def init(params: Any) -> ScaleByRmsState:
        return ScaleByRmsState(nu=pytree.tree_map(lambda p: torch.full_like(p, initial_scale), params))

    def leaf(grad: Tensor, param: Any, nu: Tensor) -> tuple[Tensor, Tensor]:
        nu = moment(grad, nu, alpha, 2)
        return grad / (safe_sqrt(nu) + eps), nu

    return make_transformation(init, Formula(lambda state: leaf, ("nu",), writes=True))

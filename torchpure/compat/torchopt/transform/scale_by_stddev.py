"""Scaling by the standard deviation (Graves 2013, arXiv:1308.0850, equations 38 to 41)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import GradientTransformation
from torchpure.optim.core import safe_sqrt

from ._checks import check_nonnegative
from ._leafwise import Formula, make_transformation
from .utils import flattened, init_like, moment

__all__ = ["scale_by_stddev"]


class ScaleByRStdDevState(NamedTuple):
    """State of `scale_by_stddev`."""

    mu: Any  # running mean of the gradients
    nu: Any  # running mean of their squares


@flattened
def scale_by_stddev(alpha: float = 0.9, eps: float = 1e-8, initial_scale: float = 0.0) -> GradientTransformation:
    """Return g / (√(n − m²) + eps), with m and n the running means of g and g².

    A variance below 0, which rounding makes when the gradients are nearly constant, counts as 0.

    Raises:
        ValueError: `alpha` or `eps` is negative.
    """
    check_nonnegative(alpha=alpha, eps=eps)

    def init(params: Any) -> ScaleByRStdDevState:
        nu = pytree.tree_map(lambda p: torch.full_like(p, initial_scale), params)
        return ScaleByRStdDevState(mu=init_like(params), nu=nu)

    def leaf(grad: Tensor, param: Any, mu: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        mu, nu = moment(grad, mu, alpha, 1), moment(grad, nu, alpha, 2)
        return grad / (safe_sqrt(nu.addcmul(mu, mu, value=-1.0)) + eps), mu, nu

    return make_transformation(init, Formula(lambda state: leaf, ("mu", "nu"), writes=True))

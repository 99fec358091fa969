"""Adamax's scaling (Kingma and Ba 2015, arXiv:1412.6980, section 7.1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure.compat.torchopt.base import GradientTransformation

from ._checks import check_betas, check_nonnegative
from ._leafwise import Formula, make_transformation
from .utils import flattened, init_like, moment

__all__ = ["scale_by_adamax"]


class ScaleByAdamaxState(NamedTuple):
    """State of `scale_by_adamax`."""

    mu: Any  # running mean of the gradients
    nu: Any  # decayed maximum of their sizes
    t: int  # the number of the next step


@flattened
def scale_by_adamax(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, moment_requires_grad: bool = False
) -> GradientTransformation:
    """Return m / ((1 − b1ᵗ) n) with m ← b1 m + (1 − b1) g and n ← max(b2 n, |g| + eps).

    A leaf without a gradient is left alone.

    Raises:
        ValueError: `eps` is negative, or `b1` or `b2` not in [0, 1).
    """
    check_nonnegative(eps=eps)
    check_betas(b1, b2)

    def init(params: Any) -> ScaleByAdamaxState:
        mu, nu = (init_like(params, requires_grad=moment_requires_grad) for _ in range(2))
        return ScaleByAdamaxState(mu=mu, nu=nu, t=1)

    def prepare(state: ScaleByAdamaxState) -> Any:
        correction = 1 - b1**state.t

        def leaf(grad: Tensor, param: Any, mu: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            mu, nu = moment(grad, mu, b1, 1), torch.maximum(nu * b2, grad.abs() + eps)
            return mu / nu / correction, mu, nu

        return leaf

    return make_transformation(
        init, Formula(prepare, ("mu", "nu"), advance=lambda state: state._replace(t=state.t + 1))
    )

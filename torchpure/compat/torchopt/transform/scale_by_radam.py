"""RAdam's scaling (Liu et al. 2020, arXiv:1908.03265, algorithm 2)."""

import math
from typing import Any, NamedTuple

from torch import Tensor

from torchpure.compat.torchopt.base import GradientTransformation
from torchpure.optim.core import safe_sqrt

from ._checks import check_betas, check_nonnegative
from ._leafwise import Formula, make_transformation
from .utils import flattened, init_like, moment

__all__ = ["scale_by_radam"]


class ScaleByRAdamState(NamedTuple):
    """State of `scale_by_radam`."""

    mu: Any  # running mean of the gradients
    nu: Any  # running mean of their squares
    t: int  # the number of the next step


@flattened
def scale_by_radam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, moment_requires_grad: bool = False
) -> GradientTransformation:
    """Return Adam's direction times the rectification, or m̂ alone while the variance is intractable (ρ ≤ 5).

    A leaf without a gradient is left alone.

    Raises:
        ValueError: `eps` is negative, or `b1` or `b2` not in [0, 1).
    """
    check_nonnegative(eps=eps)
    check_betas(b1, b2)

    def init(params: Any) -> ScaleByRAdamState:
        mu, nu = (init_like(params, requires_grad=moment_requires_grad) for _ in range(2))
        return ScaleByRAdamState(mu=mu, nu=nu, t=1)

    def prepare(state: ScaleByRAdamState) -> Any:
        factor = _rectification(b2, state.t)

        def leaf(grad: Tensor, param: Any, mu: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            mu, nu = moment(grad, mu, b1, 1), moment(grad, nu, b2, 2)
            mean = mu / (1 - b1**state.t)
            return mean if factor is None else mean * factor / (safe_sqrt(nu) + eps), mu, nu

        return leaf

    return make_transformation(
        init, Formula(prepare, ("mu", "nu"), advance=lambda state: state._replace(t=state.t + 1))
    )


def _rectification(b2: float, step: int) -> float | None:
    """Return r √(1 − b2ᵗ) of the paper, or None while ρ ≤ 5."""
    correction, limit = 1 - b2**step, 2 / (1 - b2) - 1
    rho = limit - 2 * step * b2**step / correction
    if rho <= 5:
        return None
    return math.sqrt(correction * (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))

"""Adadelta's scaling (Zeiler 2012, arXiv:1212.5701, algorithm 1)."""

from typing import Any, NamedTuple

from torch import Tensor

from torchpure.compat.torchopt.base import GradientTransformation
from torchpure.optim.core import safe_sqrt

from ._checks import check_closed_interval, check_nonnegative
from ._leafwise import Formula, make_transformation
from .utils import flattened, init_like, moment

__all__ = ["scale_by_adadelta"]


class ScaleByAdadeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    mu: Any  # running mean of the squares of the gradients
    nu: Any  # running mean of the squares of the updates


@flattened
def scale_by_adadelta(
    rho: float = 0.9, eps: float = 1e-6, moment_requires_grad: bool = False
) -> GradientTransformation:
    """Return u = g √((n + eps) / (m + eps)), with m the running mean of g² and n that of u².

    Raises:
        ValueError: `eps` is negative, or `rho` not in [0, 1].
    """
    check_closed_interval(rho=rho)
    check_nonnegative(eps=eps)

    def init(params: Any) -> ScaleByAdadeltaState:
        mu, nu = (init_like(params, requires_grad=moment_requires_grad) for _ in range(2))
        return ScaleByAdadeltaState(mu=mu, nu=nu)

    def leaf(grad: Tensor, param: Any, mu: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        mu = moment(grad, mu, rho, 2)
        update = grad * safe_sqrt((nu + eps) / (mu + eps))
        return update, mu, moment(update, nu, rho, 2)

    return make_transformation(init, Formula(lambda state: leaf, ("mu", "nu"), writes=True))

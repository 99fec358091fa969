"""Adam's scaling (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import foreach_add, foreach_clone, fused_adam_
from torchpure.compat.torchopt.base import GradientTransformation
from torchpure.optim.core import safe_sqrt

from ._checks import check_betas, check_nonnegative
from ._leafwise import Formula, UnsupportedTensors, make_transformation
from .utils import flattened, init_counts, init_like, moment, next_count

__all__ = ["scale_by_accelerated_adam", "scale_by_adam"]

_DTYPES = (torch.float32, torch.float64)


class ScaleByAdamState(NamedTuple):
    """State of `scale_by_adam`."""

    mu: Any  # running mean of the gradients
    nu: Any  # running mean of their squares
    count: Any  # steps of each leaf, int64, shape ()


def _correction(decay: float, count: Tensor) -> Any:
    """Return 1 − decayᵗ in float64. torchopt's falls to float32."""
    if count.device.type == "cpu" and tree.plain([count]):
        return 1 - decay ** int(count)
    return 1 - decay ** count.double()


def _fusible(tensors: tuple[Tensor, ...]) -> bool:
    dtype = tensors[0].dtype
    return dtype in _DTYPES and all(t.dtype == dtype and t.is_cpu and t.is_contiguous() for t in tensors)


def _kernel(b1: float, b2: float, eps: float) -> Any:
    """Return torch's fused step, which moves zeros by m̂ / (√v̂ + eps)."""

    def run(grads: Any, params: Any, mu: Any, nu: Any, count: Any) -> tuple[Any, ...]:
        if not _fusible((*grads, *mu, *nu)):
            raise UnsupportedTensors
        counts, (mu, nu) = foreach_add(count, 1), (foreach_clone(mu), foreach_clone(nu))
        updates, steps = [torch.zeros_like(grad) for grad in grads], [c.to(torch.float32) for c in counts]
        options = {"beta1": b1, "beta2": b2, "weight_decay": 0.0, "eps": eps, "amsgrad": False, "maximize": False}
        fused_adam_(updates, grads, mu, nu, [], steps, lr=-1.0, **options)
        return updates, mu, nu, counts

    return lambda state: run


@flattened
def scale_by_adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    moment_requires_grad: bool = False,
) -> GradientTransformation:
    """Return m̂ / (√(v̂ + eps_root) + eps). Its derivatives are finite where a gradient is exactly zero.

    m ← b1 m + (1 − b1) g, v ← b2 v + (1 − b2) g², m̂ = m / (1 − b1ᵗ), v̂ = v / (1 − b2ᵗ).

    Raises:
        ValueError: `eps` is negative, or `b1` or `b2` not in [0, 1).

    >>> import torch
    >>> adam = scale_by_adam()
    >>> adam.update((torch.tensor(2.0),), adam.init((torch.tensor(0.0),)))[0]
    (tensor(1.0000),)
    """
    check_nonnegative(eps=eps)
    check_betas(b1, b2)

    def init(params: Any) -> ScaleByAdamState:
        mu, nu = (init_like(params, requires_grad=moment_requires_grad) for _ in range(2))
        return ScaleByAdamState(mu=mu, nu=nu, count=init_counts(params))

    def leaf(grad: Tensor, param: Any, mu: Tensor, nu: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        count = next_count(count)
        mu, nu = moment(grad, mu, b1, 1), moment(grad, nu, b2, 2)
        square = nu / tree.cast(_correction(b2, count), nu)
        root = safe_sqrt(square if eps_root == 0.0 else square + eps_root)
        return mu / tree.cast(_correction(b1, count), mu) / (root + eps), mu, nu, count

    constant = not any(isinstance(number, Tensor) for number in (b1, b2, eps, eps_root))
    kernel = _kernel(b1, b2, eps) if constant and eps_root == 0.0 else None
    return make_transformation(
        init, Formula(lambda state: leaf, ("mu", "nu", "count"), constant=constant, kernel=kernel)
    )


@flattened
def scale_by_accelerated_adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    moment_requires_grad: bool = False,
) -> GradientTransformation:
    """Return `scale_by_adam`: its recorded steps are one node already, and its derivatives exact.

    Raises:
        ValueError: `eps` is negative, or `b1` or `b2` not in [0, 1).
    """
    return scale_by_adam(b1, b2, eps, eps_root, moment_requires_grad)

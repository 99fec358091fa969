"""Layerwise trust ratios (You, Gitman and Ginsburg 2017, arXiv:1708.03888, equation 6)."""

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import EmptyState, Number, Optimizer, check_nonnegative, is_negligible, leafwise, safe_norm


def trust_ratio(u: Tensor, p: Tensor, min_norm: Number, coefficient: Number, eps: Number) -> Tensor:
    """Return coefficient ‖p‖ / (‖u‖ + eps) for one leaf, or 1 if a norm is 0. Norms are at least `min_norm`."""
    p_norm, u_norm = (safe_norm(x) for x in (p, u))
    p_norm, u_norm = (torch.where(norm <= min_norm, min_norm, norm) for norm in (p_norm, u_norm))
    is_zero = is_negligible(p_norm) | is_negligible(u_norm)
    return torch.where(is_zero, 1, coefficient * p_norm / torch.where(is_zero, 1, u_norm + eps))


def scale_by_trust_ratio(
    *, min_norm: Number = 0.0, trust_coefficient: Number = 1.0, eps: Number = 0.0
) -> Optimizer[EmptyState]:
    """Scale each leaf's update in proportion to the leaf's norm: u ← u trust_coefficient ‖p‖ / (‖u‖ + eps).

    If a norm is 0, the ratio is 1. Norms are at least `min_norm`.

    Raises:
        ValueError: a number is negative.

    >>> ratio, params = scale_by_trust_ratio(), torch.tensor([6.0, 8.0])
    >>> ratio.update(torch.tensor([3.0, 4.0]), ratio.init(params), params)[0]
    tensor([6., 8.])
    """
    check_nonnegative("scale_by_trust_ratio", min_norm=min_norm, trust_coefficient=trust_coefficient, eps=eps)

    def update(grads: Grads, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        def rule(g: Tensor, p: Tensor) -> Tensor:
            return g * trust_ratio(g, p, min_norm, trust_coefficient, eps)

        return leafwise("scale_by_trust_ratio", rule, grads, (), params), state

    return Optimizer(lambda params: EmptyState(), update)

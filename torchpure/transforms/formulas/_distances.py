"""Distances and functions of norms: at equal points and zero rows their derivatives are zero, in every order."""

import math
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import FakeTensor
from torchpure.transforms.engine import in_first_gradient, in_first_gradient_of_members

from ._elementwise import with_value
from ._norms import normalized, power_of_two_to_range, right_in_torch, vector_norm, with_right_value


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """Compute `F.pairwise_distance`."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    """Compute `torch.cdist`.

    The formula is right for each pair. A program of a first gradient has torch's kernel, which is several times faster,
    with all points scaled: there pairs that are nearer than the root of the smallest number count as equal.
    """
    mode = "use_mm_for_euclid_dist_if_necessary" if compute_mode is None else compute_mode
    once = 0 < p < math.inf and in_first_gradient_of_members(x1, x2)  # torch has no other derivative
    quick = right_in_torch(lambda: torch.cdist(x1, x2, p, mode), p, x1, x2) if once else None
    if quick is not None:
        return quick
    if 0 < p < math.inf and x1.numel() and x2.numel() and (in_first_gradient() or isinstance(x1, FakeTensor)):
        scale = power_of_two_to_range(x1, x2, p=p)
        return torch.cdist(x1 * scale, x2 * scale, p, mode) / scale
    value = torch.cdist(x1.detach(), x2.detach(), p, mode)
    followed = vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1) if value.numel() else value
    return with_right_value(followed, value, p) if value.numel() and 0 < p < math.inf else with_value(followed, value)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """Compute `F.pdist`."""
    first, second = torch.triu_indices(input.shape[0], input.shape[0], 1, device=input.device)
    return vector_norm(input[first] - input[second], p, -1)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """Compute `F.normalize`: x / max(‖x‖, eps)."""
    return normalized(input, p, dim, eps)


def renorm(input: Tensor, p: Any, dim: int, maxnorm: Any) -> Tensor:
    """Compute `torch.renorm`: slices with a larger norm are scaled down to `maxnorm`."""
    others = tuple(i for i in range(input.ndim) if i != dim % input.ndim)
    size = vector_norm(input, p, others, True)
    large = size > maxnorm
    return input * torch.where(large, maxnorm / (torch.where(large, size, 1.0) + 1e-7), 1.0)  # torch's 1e-7


def frobenius_norm(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Compute `torch.frobenius_norm`."""
    return vector_norm(input, 2, dim if isinstance(dim, int) else tuple(dim) or None, keepdim)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: Any = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    *old: Any,
    reduction: str = "mean",
    **other: Any,
) -> Tensor:
    """Compute `F.triplet_margin_loss`."""
    near, far = (pairwise_distance(anchor, end, p, eps) for end in (positive, negative))
    if swap:
        far = torch.minimum(far, pairwise_distance(positive, negative, p, eps))
    losses = (margin + near - far).clamp(min=0)
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses

"""Clipping of updates: by entry, by leaf, by the norm over all leaves, and by unit of a layer."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import (
    EmptyState,
    Number,
    Optimizer,
    check_nonnegative,
    leafwise,
    safe_divide,
    safe_norm,
    safe_rms,
    scalar_like,
    stateless,
    stateless_leafwise,
)


def clip(max_delta: Number) -> Optimizer[EmptyState]:
    """Clip each entry: u = min(max(g, −max_delta), max_delta).

    For a complex entry, the real and the imaginary part are clipped.

    Raises:
        ValueError: `max_delta` is negative.

    >>> clip(1.0).update(torch.tensor([3.0, -0.5]), EmptyState(), None)[0]
    tensor([ 1.0000, -0.5000])
    """
    check_nonnegative("clip", max_delta=max_delta)

    def rule(g: Tensor, p: Any) -> Tensor:
        limit = scalar_like(max_delta, g)
        return torch.minimum(torch.maximum(g, -limit), limit)

    return stateless_leafwise("clip", rule)


def clip_by_block_rms(threshold: Number) -> Optimizer[EmptyState]:
    """Scale each leaf so that its root mean square is at most `threshold`: u = g / max(1, rms(g) / threshold).

    From Adafactor (Shazeer and Stern 2018, arXiv:1804.04235, section 6).

    Raises:
        ValueError: `threshold` is negative.

    >>> clip_by_block_rms(1.0).update(torch.tensor([3.0, -3.0]), EmptyState(), None)[0]
    tensor([ 1., -1.])
    """
    check_nonnegative("clip_by_block_rms", threshold=threshold)
    return stateless_leafwise("clip_by_block_rms", lambda g, p: g / (safe_rms(g) / threshold).clamp(min=1))


def clip_by_global_norm(max_norm: Number) -> Optimizer[EmptyState]:
    """Scale gradients so that their norm over all leaves is at most `max_norm`: u = g min(1, max_norm / ‖g‖).

    From Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.

    Raises:
        ValueError: `max_norm` is negative.

    >>> clip_by_global_norm(1.0).update(torch.tensor([3.0, 4.0]), EmptyState(), None)[0]
    tensor([0.6000, 0.8000])
    """
    check_nonnegative("clip_by_global_norm", max_norm=max_norm)

    def f(grads: Grads, params: Params) -> Updates:
        norm = tree.norm(grads)
        limit = scalar_like(max_norm, norm)
        above = norm > limit
        factor = torch.where(above, limit / torch.where(above, norm, 1), 1)
        return tree.scale(grads, factor)

    return stateless(f)


def normalize_by_update_norm(scale_factor: Number = 1.0, *, eps: Number = 1e-6) -> Optimizer[EmptyState]:
    """Scale updates so that their norm over all leaves is `scale_factor`: u = scale_factor g / (‖g‖ + eps).

    Raises:
        ValueError: `eps` is negative.

    >>> normalize_by_update_norm(eps=0.0).update(torch.tensor([3.0, 4.0]), EmptyState(), None)[0]
    tensor([0.6000, 0.8000])
    """
    check_nonnegative("normalize_by_update_norm", eps=eps)

    def f(grads: Grads, params: Params) -> Updates:
        norm = tree.norm(grads) + eps
        return tree.scale(grads, safe_divide(scalar_like(scale_factor, norm), norm))

    return stateless(f)


def adaptive_grad_clip(
    clipping: Number, *, eps: Number = 1e-3, axis: int | tuple[int, ...] | None = None
) -> Optimizer[EmptyState]:
    """Clip the gradient of each unit: ‖g‖ ≤ clipping max(‖p‖, eps) (Brock et al. 2021, arXiv:2102.06171, equation 3).

    A unit is one output of a layer: the norm is over all dimensions but the first, as torch's layers store their
    weights. A vector is one unit. `axis` names other dimensions for the norm.

    Raises:
        ValueError: `clipping` or `eps` is negative.

    >>> adaptive_grad_clip(0.1).update(torch.tensor([[30.0, 40.0]]), EmptyState(), torch.tensor([[3.0, 4.0]]))[0]
    tensor([[0.3000, 0.4000]])
    """
    check_nonnegative("adaptive_grad_clip", clipping=clipping, eps=eps)

    def factor(g: Tensor, p: Tensor) -> Tensor:
        dims = axis if axis is not None else tuple(range(1 if g.ndim > 1 else 0, g.ndim))
        norm = safe_norm(g, dims, keepdim=True)
        limit = clipping * torch.maximum(safe_norm(p, dims, keepdim=True), scalar_like(eps, p))
        above = norm > limit
        return torch.where(above, limit / torch.where(above, norm, 1), 1).expand_as(g)

    def f(grads: Grads, params: Params) -> Updates:
        sizes = leafwise("adaptive_grad_clip", factor, tree.map(_size, grads), (), tree.map(_size, params))
        return leafwise("adaptive_grad_clip", lambda g, size, p: (g * _like(size, g), size), grads, (sizes,), params)[0]

    return stateless(f)


def _size(leaf: Any) -> Any:
    """Return a leaf with the same norms whose clipping factor has at least single precision."""
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.abs() if leaf.is_complex() else leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf


def _like(factor: Tensor, g: Tensor) -> Tensor:
    return factor if factor.ndim == g.ndim else factor.unsqueeze(-1)  # g has the parts of complex entries last

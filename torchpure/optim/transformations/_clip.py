"""Clipping of updates: by entry, by leaf, by all leaves together, and by unit of a layer."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import (
    EmptyState,
    Number,
    Optimizer,
    check_positive,
    number,
    safe_divide,
    safe_norm,
    safe_rms,
    stateless,
    stateless_leafwise,
)


def clip(max_delta: Number) -> Optimizer[EmptyState]:
    """Clip each entry: u = min(max(g, −max_delta), max_delta); of complex ones the real and the imaginary part.

    Raises:
        ValueError: `max_delta` is negative.

    >>> clip(1.0).update(torch.tensor([3.0, -0.5]), EmptyState(), None)[0]
    tensor([ 1.0000, -0.5000])
    """
    check_positive("clip", max_delta=max_delta)

    def rule(g: Tensor, p: Any) -> Tensor:
        limit = number(max_delta, g)
        return torch.minimum(torch.maximum(g, -limit), limit)

    return stateless_leafwise("clip", rule)


def clip_by_block_rms(threshold: Number) -> Optimizer[EmptyState]:
    """Scale each leaf down so that its root mean square is at most `threshold`: u = g / max(1, rms(g) / threshold).

    From Adafactor (Shazeer and Stern 2018, arXiv:1804.04235, section 6).

    Raises:
        ValueError: `threshold` is negative.

    >>> clip_by_block_rms(1.0).update(torch.tensor([3.0, -3.0]), EmptyState(), None)[0]
    tensor([ 1., -1.])
    """
    check_positive("clip_by_block_rms", threshold=threshold)
    return stateless_leafwise("clip_by_block_rms", lambda g, p: g / (safe_rms(g) / threshold).clamp(min=1))


def clip_by_global_norm(max_norm: Number) -> Optimizer[EmptyState]:
    """Scale the gradients down so that their Euclidean norm over all leaves is at most `max_norm`.

    Gradients whose norm is not above it come out as they went in (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1).

    Raises:
        ValueError: `max_norm` is negative.

    >>> clip_by_global_norm(1.0).update(torch.tensor([3.0, 4.0]), EmptyState(), None)[0]
    tensor([0.6000, 0.8000])
    """
    check_positive("clip_by_global_norm", max_norm=max_norm)

    def f(grads: Grads, params: Params) -> Updates:
        norm = tree.norm(grads)
        limit = number(max_norm, norm)
        above = norm > limit
        factor = torch.where(above, limit / torch.where(above, norm, 1), 1)
        return tree.scale(grads, factor)

    return stateless(f)


def normalize_by_update_norm(scale_factor: Number = 1.0, *, eps: Number = 1e-6) -> Optimizer[EmptyState]:
    """Give the updates of all leaves together the norm `scale_factor`: u = scale_factor g / (‖g‖ + eps).

    Raises:
        ValueError: `eps` is negative.

    >>> normalize_by_update_norm(eps=0.0).update(torch.tensor([3.0, 4.0]), EmptyState(), None)[0]
    tensor([0.6000, 0.8000])
    """
    check_positive("normalize_by_update_norm", eps=eps)

    def f(grads: Grads, params: Params) -> Updates:
        norm = tree.norm(grads) + eps
        return tree.scale(grads, safe_divide(number(scale_factor, norm), norm))

    return stateless(f)


def adaptive_grad_clip(
    clipping: Number, *, eps: Number = 1e-3, axis: int | tuple[int, ...] | None = None
) -> Optimizer[EmptyState]:
    """Clip each unit's gradient to a part of the unit's norm: ‖g‖ ≤ clipping max(‖p‖, eps) (Brock et al. 2021).

    arXiv:2102.06171, equation 3. A unit is what one output sees: all dimensions but the first, as torch's layers lay
    out their weights; all entries of a vector. `axis` names other dimensions to take the norm over.

    Raises:
        ValueError: `clipping` or `eps` is negative.

    >>> adaptive_grad_clip(0.1).update(torch.tensor([[30.0, 40.0]]), EmptyState(), torch.tensor([[3.0, 4.0]]))[0]
    tensor([[0.3000, 0.4000]])
    """
    check_positive("adaptive_grad_clip", clipping=clipping, eps=eps)

    def rule(g: Tensor, p: Tensor) -> Tensor:
        dims = axis if axis is not None else tuple(range(1 if g.ndim > 1 else 0, g.ndim))
        norm = safe_norm(g, dims, keepdim=True)
        limit = clipping * torch.maximum(safe_norm(p, dims, keepdim=True), number(eps, p))
        above = norm > limit
        return torch.where(above, g * (limit / torch.where(above, norm, 1)), g)

    return stateless_leafwise("adaptive_grad_clip", rule)

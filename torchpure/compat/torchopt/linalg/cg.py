"""The conjugate gradient method (Hestenes and Stiefel 1952)."""

import math
from collections.abc import Callable
from typing import Any

import torch

from torchpure.compat.torchopt import pytree

from .utils import cat_shapes, normalize_matvec

__all__ = ["cg"]


def cg(
    A: Any | Callable[[Any], Any],
    b: Any,
    x0: Any | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any | Callable[[Any], Any] | None = None,
) -> Any:
    """Solve A x = b for a positive definite A: matrices, one for each leaf, or a function of trees.

    It ends when |r| ≤ max(rtol |b|, atol), or after `maxiter` steps, ten times the number of entries by default. `M`
    approximates the inverse of A. An exact start, or b = 0, costs no step.

    Raises:
        ValueError: `x0` and `b` have different shapes.

    >>> cg(torch.diag(torch.tensor([2.0, 4.0])), torch.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    start = pytree.tree_map(torch.zeros_like, b) if x0 is None else x0
    if cat_shapes(start) != cat_shapes(b):
        raise ValueError(f"Tensors in x0 and b must have matching shapes: {cat_shapes(start)} vs. {cat_shapes(b)}.")
    precondition = (lambda r: r) if M is None else normalize_matvec(M)
    most = 10 * sum(math.prod(leaf.shape) for leaf in pytree.tree_leaves(b)) if maxiter is None else maxiter
    limit = max(rtol**2 * pytree.tree_vdot_real(b, b), atol**2)
    return _iterate(normalize_matvec(A), b, start, precondition, limit, most, plain=M is None)


def _iterate(
    matvec: Callable[[Any], Any],
    b: Any,
    x: Any,
    precondition: Callable[[Any], Any],
    limit: float,
    most: int,
    *,
    plain: bool,
) -> Any:
    residual = pytree.tree_map(torch.sub, b, matvec(x))
    direction = preconditioned = precondition(residual)
    gamma = pytree.tree_vdot_real(residual, preconditioned)
    for _ in range(most):
        if (gamma if plain else pytree.tree_vdot_real(residual, residual)) <= limit:
            break
        image = matvec(direction)
        alpha = gamma / pytree.tree_vdot_real(direction, image)
        x = pytree.tree_add_scalar_mul(x, direction, alpha)
        residual = pytree.tree_sub_scalar_mul(residual, image, alpha)
        preconditioned = precondition(residual)
        gamma, old = pytree.tree_vdot_real(residual, preconditioned), gamma
        direction = pytree.tree_add_scalar_mul(preconditioned, direction, gamma / old)
    return x

"""Inverses by Neumann's series: A⁻¹ = α Σ (I − α A)ᵏ."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree

from .utils import normalize_matvec

__all__ = ["ns", "ns_inv"]


def _check_square(matrix: Tensor) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`A` must be a square matrix, but has shape: {matrix.shape}")


def ns(A: Any | Callable[[Any], Any], b: Any, maxiter: int | None = None, *, alpha: float | None = None) -> Any:
    """Approximate A⁻¹ b by `maxiter` terms (default 10) after the first; it converges if |I − α A| < 1.

    Raises:
        ValueError: a leaf of `A` is not a square matrix.

    >>> ns(torch.eye(2) * 0.5, torch.ones(2), maxiter=30)
    tensor([2., 2.])
    """
    if not callable(A):
        pytree.tree_map_(_check_square, A)
    matvec = normalize_matvec(A)
    total = term = b
    for _ in range(10 if maxiter is None else maxiter):
        term = pytree.tree_sub_scalar_mul(term, matvec(term), alpha)
        total = pytree.tree_add(total, term)
    return total if alpha is None else pytree.tree_scalar_mul(alpha, total)


def ns_inv(A: Any, maxiter: int | None = None, *, alpha: float | None = None) -> Any:
    """Approximate A⁻¹ by the sum of `maxiter` terms (default 10), for each leaf.

    Raises:
        ValueError: a leaf is not a square matrix.
    """
    terms = 10 if maxiter is None else maxiter

    def inverse(matrix: Tensor) -> Tensor:
        _check_square(matrix)
        one = torch.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
        factor = one - (matrix if alpha is None else alpha * matrix)
        total, power = torch.zeros_like(matrix), one
        for _ in range(terms):
            total, power = total + power, power @ factor
        return total if alpha is None else alpha * total

    return pytree.tree_map(inverse, A)

"""Eigenvectors and singular vectors, with derivatives that are finite everywhere.

Where eigenvalues or singular values are equal, their vectors are not unique, and have no derivative. So a small
diagonal matrix with distinct entries is added to each matrix first. Its entries are about ten rounding errors of the
matrix's norm: enough to separate equal values, and too small to matter otherwise. A matrix that is not finite has
vectors of NaN; torch would raise an error for all members of a batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ._formulas import overflow_scale, safe_norm

_ROUNDINGS = 10.0  # size of the perturbation, in rounding errors of the norm


def _perturbation(matrix: Tensor) -> Tensor:
    """Return a small diagonal matrix with distinct entries, in proportion to the norm of `matrix`."""
    rows, columns = matrix.shape
    num_values, limits = min(rows, columns), torch.finfo(matrix.dtype)
    entries = torch.linspace(2.0, 1.0, num_values, dtype=matrix.dtype, device=matrix.device)
    diagonal = torch.eye(rows, columns, dtype=matrix.dtype, device=matrix.device) * _pad(entries, columns)
    # the fourth root of `tiny`: derivatives divide by differences of squares, which must not underflow
    return diagonal * (safe_norm(matrix) * (_ROUNDINGS * limits.eps) + limits.tiny**0.25)


def _pad(entries: Tensor, columns: int) -> Tensor:
    return torch.cat([entries, entries.new_zeros(columns - entries.numel())])


def _nan_unless_finite(compute: Callable[[Tensor], Tensor], matrix: Tensor) -> Tensor:
    finite = matrix.isfinite().all()
    safe = torch.where(finite, matrix, 0)
    safe = safe / overflow_scale(safe)  # which does not change the vectors
    return torch.where(finite, compute(safe + _perturbation(safe)), float("nan"))


def largest_singular_value(matrix: Tensor) -> Tensor:
    """Return the spectral norm of a matrix; NaN if an entry is not finite.

    >>> largest_singular_value(torch.diag(torch.tensor([3.0, 1.0])))
    tensor(3.)
    """
    finite = matrix.isfinite().all()
    return torch.where(finite, torch.linalg.matrix_norm(torch.where(finite, matrix, 0), 2), float("nan"))


def eigenbasis(matrix: Tensor) -> Tensor:
    """Return the eigenvectors of a symmetric matrix as columns, in ascending order of the eigenvalues.

    >>> eigenbasis(torch.zeros(2, 2)).abs()
    tensor([[0., 1.],
            [1., 0.]])
    """
    if not matrix.numel():
        return matrix
    return _nan_unless_finite(lambda finite: torch.linalg.eigh(finite).eigenvectors.contiguous(), matrix)


def orthogonal_iteration(matrix: Tensor, basis: Tensor) -> Tensor:
    """Move a basis towards the eigenvectors of a symmetric matrix by one step of orthogonal iteration.

    >>> orthogonal_iteration(torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)).abs()
    tensor([[1., 0.],
            [0., 1.]])
    """
    if not matrix.numel():
        return basis
    matrix = matrix / overflow_scale(matrix)
    return torch.linalg.qr((matrix + _perturbation(matrix)) @ basis).Q.contiguous()


def left_singular_vectors(matrix: Tensor, rank: int) -> Tensor:
    """Return the first `rank` left singular vectors as columns, in descending order of the singular values.

    >>> left_singular_vectors(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), 1).abs().round(decimals=4)
    tensor([[0.],
            [1.]])
    """

    def compute(finite: Tensor) -> Tensor:
        vectors = torch.linalg.svd(finite, full_matrices=False).U[:, :rank]
        return vectors.clone(memory_format=torch.contiguous_format)

    return _nan_unless_finite(compute, matrix)

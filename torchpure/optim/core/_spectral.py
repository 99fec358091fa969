"""Bases of matrices, with derivatives that are finite everywhere.

Where singular values or eigenvalues are equal the vectors are not determined, and have no derivative. So each matrix
is tilted by a few roundings of its own size first, by a different amount along each axis: that decides between equal
ones, and changes nothing else that can be seen.
"""

import torch
from torch import Tensor

from ._formulas import safe_norm

_ROUNDINGS = 10.0


def _tilt(matrix: Tensor) -> Tensor:
    """Make a matrix with a distinct value for each axis on its diagonal, a few roundings of the given one's size."""
    rows, columns = matrix.shape
    small, kind = min(rows, columns), torch.finfo(matrix.dtype)
    steps = torch.linspace(2.0, 1.0, small, dtype=matrix.dtype, device=matrix.device)
    slope = torch.eye(rows, columns, dtype=matrix.dtype, device=matrix.device) * _widened(steps, columns)
    # the fourth root: derivatives divide by differences of squares, which must not underflow
    return slope * (safe_norm(matrix) * (_ROUNDINGS * kind.eps) + kind.tiny**0.25)


def _widened(steps: Tensor, columns: int) -> Tensor:
    return torch.cat([steps, steps.new_zeros(columns - steps.numel())])


def eigenbasis(matrix: Tensor) -> Tensor:
    """Return the eigenvectors of a symmetric matrix as columns, in the order of growing eigenvalues.

    >>> eigenbasis(torch.zeros(2, 2)).abs()
    tensor([[0., 1.],
            [1., 0.]])
    """
    return torch.linalg.eigh(matrix + _tilt(matrix)).eigenvectors.contiguous() if matrix.numel() else matrix


def iterated(matrix: Tensor, basis: Tensor) -> Tensor:
    """Turn a basis towards the eigenvectors of a symmetric matrix, by one step of orthogonal iteration.

    >>> iterated(torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)).abs()
    tensor([[1., 0.],
            [0., 1.]])
    """
    return torch.linalg.qr((matrix + _tilt(matrix)) @ basis).Q.contiguous() if matrix.numel() else basis


def principal(matrix: Tensor, rank: int) -> Tensor:
    """Return the first left singular vectors as columns, by falling singular value.

    >>> principal(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), 1).abs().round(decimals=4)
    tensor([[0.],
            [1.]])
    """
    return (
        torch.linalg.svd(matrix + _tilt(matrix), full_matrices=False)
        .U[:, :rank]
        .clone(memory_format=torch.contiguous_format)
    )

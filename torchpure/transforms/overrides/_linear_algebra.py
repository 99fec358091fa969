"""Triangular solves, and inverses from Cholesky factors.

In torch 2.13 the forward derivatives of `triangular_solve` and `cholesky_inverse` are wrong under a gradient. The
gradient of `cholesky_inverse` is wrong for a matrix that is not triangular.
"""

from typing import Any

import torch
from torch import Tensor

from ._override import Override, Where


def _triangular_solve(
    input: Tensor,
    A: Tensor,  # noqa: N803 torch's name
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> Any:
    part = A.triu() if upper else A.tril()
    if transpose:
        part, upper = part.mT, not upper
    solution = torch.linalg.solve_triangular(part, input, upper=upper, unitriangular=unitriangular)
    return torch.return_types.triangular_solve((solution, A.clone()))


def _cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    factor = input.triu().mH if upper else input.tril()
    identity = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device)
    half = torch.linalg.solve_triangular(factor, identity, upper=False)
    return half.mH @ half


OVERRIDES = (
    Override([torch.triangular_solve, Tensor.triangular_solve], Where.ALWAYS, _triangular_solve),
    Override([torch.cholesky_inverse, Tensor.cholesky_inverse], Where.ALWAYS, _cholesky_inverse),
)

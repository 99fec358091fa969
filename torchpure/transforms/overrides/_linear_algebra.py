"""Triangular solves, inverses from Cholesky factors, and norms.

In torch 2.13 the forward derivatives of `triangular_solve` and `cholesky_inverse` are wrong under a gradient. The
gradient of `cholesky_inverse` is wrong for a matrix that is not triangular. The forward derivative of a norm cannot be
differentiated again.
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


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **other: Any
) -> Tensor:
    """Compute `torch.linalg.vector_norm`; for order 2 as √Σx², with derivative zero at zero."""
    dim, keepdim = other.get("axis", dim), other.get("keepdims", keepdim)  # torch takes NumPy's names too
    if ord != 2 or dtype is not None or x.dtype not in {torch.float32, torch.float64}:
        return torch.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype)
    squares = (x**2).sum() if dim is None and not keepdim else (x**2).sum(dim, keepdim)
    positive = squares > 0  # the root has an infinite derivative at zero; torch's norm has zero
    return torch.where(positive, torch.sqrt(torch.where(positive, squares, 1.0)), 0.0)


def _linalg_norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **other: Any) -> Tensor:
    dim, keepdim = other.pop("axis", dim), other.pop("keepdims", keepdim)
    if ord is None or (ord == 2 and (isinstance(dim, int) or (dim is None and x.ndim == 1))):
        return vector_norm(x, 2, dim, keepdim, **other)
    return torch.linalg.norm(x, ord, dim, keepdim, **other)


def _norm(
    x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Tensor:
    if p in {"fro", 2, None} and out is None:
        return vector_norm(x, 2, dim, keepdim, dtype=dtype)
    return torch.norm(x, p, dim, keepdim, out, dtype)


OVERRIDES = (
    Override([torch.triangular_solve, Tensor.triangular_solve], Where.ALWAYS, _triangular_solve),
    Override([torch.cholesky_inverse, Tensor.cholesky_inverse], Where.ALWAYS, _cholesky_inverse),
    Override([torch.linalg.vector_norm], Where.FORWARD_MODE, vector_norm),
    Override([torch.linalg.norm], Where.FORWARD_MODE, _linalg_norm),
    Override([torch.norm, Tensor.norm], Where.FORWARD_MODE, _norm),
)

"""Solvers, determinants and eigenvectors with right derivatives of every order, under any number of vmaps.

In torch 2.13 the forward derivatives of `solve` and of determinants cannot be differentiated again. The backward ones
use `lu_solve`. Its vmap rule is wrong if the factors are batched and the right-hand side is not, so second derivatives
of a batched determinant are silently wrong. Here each has a forward rule that solves again (Giles 2008, "An extended
collection of matrix derivative results for forward and reverse mode algorithmic differentiation", sections 2.2, 2.3).
The forward derivative of `eigh` is NaN in `grad` of `jvp` of `jvp`; the third one of `householder_product` is wrong.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms import formulas
from torchpure.transforms.calls import ForwardRule, ForwardRuleCall, differentiable, saved_primals
from torchpure.transforms.engine import all_between, in_any_level, may_look

from ._failing_members import by_finite_input, solve_or_nan
from ._override import Override, Where

_types: Any = torch.return_types  # Any: torch's stubs lack some of them


class _Solve(torch.autograd.Function):
    """X with A X = B: dX = A⁻¹ (dB − dA X); backwards B̄ = A⁻ᴴ X̄ and Ā = −B̄ Xᴴ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return solve_or_nan(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        a, b, x = ctx.saved_tensors
        moved = _solve(a.mH, cotangents[0])
        return (-moved @ x.mH).sum_to_size(a.shape), moved.sum_to_size(b.shape)

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (a, b, _), (da, db) = saved_primals(ctx), tangents
        x = _solve(a, b)
        right = torch.zeros_like(x) if db is None else db.expand_as(x)
        return _solve(a, right if da is None else right - da @ x)


def _solve(a: Tensor, b: Tensor) -> Tensor:
    return _Solve.apply(a, b)


class _LogDeterminant(ForwardRuleCall):
    """The sign s and log |det A|: ds = s i Im t, d log |det A| = Re t, t = tr A⁻¹ dA, infinite at singular A."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.linalg.slogdet(tensors[0]))

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        moved = _trace(_solve(tensors[0], tangents[0]))
        if not moved.is_complex():
            return [torch.zeros_like(moved), moved]
        sign, _ = ForwardRule.apply(self, tensors[0])
        return [sign * torch.complex(torch.zeros_like(moved.real), moved.imag), moved.real]


class _Determinant(ForwardRuleCall):
    """The determinant of a regular matrix, real or complex: d det A = det A · tr A⁻¹ dA."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return (torch.linalg.det(tensors[0]),)

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        return [_regular_determinant(tensors[0]) * _trace(_solve(tensors[0], tangents[0]))]


class _GeneralEigenvectors(ForwardRuleCall):
    """A V = V L with columns of length one: with P = V⁻¹ dA V, dL is its diagonal, and dV = V (P / (lⱼ − lᵢ)) + V D.

    The diagonal D keeps the lengths: the tangent of a column has no part along it. The phase of a column is free.
    """

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.linalg.eig(tensors[0]))

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        sizes, vectors = ForwardRule.apply(self, tensors[0])
        turned = _solve(vectors, tangents[0].to(vectors.dtype) @ vectors)
        moved = vectors @ _over_gaps(turned, sizes)
        along = (vectors.conj() * moved).sum(-2, keepdim=True).real
        return [turned.diagonal(dim1=-2, dim2=-1), moved - vectors * along]


def _over_gaps(turned: Tensor, sizes: Tensor) -> Tensor:
    """Divide by the differences of eigenvalues off the diagonal, which is 0."""
    gaps = sizes.unsqueeze(-2) - sizes.unsqueeze(-1)
    same = torch.eye(sizes.shape[-1], dtype=torch.bool, device=sizes.device)
    return torch.where(same, 0.0, turned / torch.where(same, 1.0, gaps))


@dataclass(frozen=True, slots=True)
class _Eigenvectors(ForwardRuleCall):
    """A = V L Vᴴ: with P = Vᴴ dA V, dL is the diagonal of P, and dV = V (P / (lⱼ − lᵢ)) off the diagonal."""

    triangle: str  # which torch reads

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.linalg.eigh(tensors[0], self.triangle))

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        sizes, vectors = ForwardRule.apply(self, tensors[0])
        turned = vectors.mH @ tangents[0] @ vectors
        moved = vectors @ _over_gaps(turned, sizes)
        return [turned.diagonal(dim1=-2, dim2=-1).real, moved]


_FINITE = (-sys.float_info.max, sys.float_info.max)
_LOG_DETERMINANT, _DETERMINANT, _EIGENVECTORS = _LogDeterminant(), _Determinant(), _GeneralEigenvectors()


def _trace(a: Tensor) -> Tensor:
    return a.diagonal(dim1=-2, dim2=-1).sum(-1)


def solve(A: Tensor, B: Tensor, *, left: bool = True, **_: Any) -> Tensor:  # noqa: N803 torch's names
    """Compute `torch.linalg.solve`."""
    if not left:
        return solve(A.mT, B.mT).mT
    if B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1]):
        return _solve(A, B.unsqueeze(-1)).squeeze(-1)
    return _solve(A, B)


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False, **_: Any) -> Any:  # noqa: N803
    """Compute `torch.linalg.solve_ex`."""
    info = torch.linalg.solve_ex(A.detach(), B.detach(), left=left, check_errors=check_errors)[1]
    return _types.linalg_solve_ex((solve(A, B, left=left), info))


def tensorsolve(A: Tensor, B: Tensor, dims: Any = None, **_: Any) -> Tensor:  # noqa: N803
    """Compute `torch.linalg.tensorsolve`."""
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    shape = A.shape[B.ndim :]
    return solve(A.reshape(B.numel(), -1), B.reshape(-1)).reshape(shape)


def determinant(A: Tensor, **_: Any) -> Tensor:  # noqa: N803
    """Compute `torch.linalg.det`."""
    return formulas.determinant(A, _regular_determinant, _solve)


def _regular_determinant(a: Tensor) -> Tensor:
    return ForwardRule.apply(_DETERMINANT, a)[0]


def slogdet(A: Tensor, **_: Any) -> Any:  # noqa: N803
    """Compute `torch.linalg.slogdet`."""
    quick = None if in_any_level() or A.is_complex() or not may_look(1, A) else torch.linalg.slogdet(A)
    if quick is not None and all_between(quick[1], *_FINITE):
        return quick
    return _types.linalg_slogdet(ForwardRule.apply(_LOG_DETERMINANT, A))


def logdet(input: Tensor) -> Tensor:
    """Compute `torch.logdet`: NaN where the determinant is a negative number."""
    sign, value = slogdet(input)
    if input.is_complex():
        return torch.log(sign) + value
    return torch.where(sign < 0, float("nan"), value)


def eigh(A: Tensor, UPLO: str = "L", **_: Any) -> Any:  # noqa: N803
    """Compute `torch.linalg.eigh`, whose derivatives are those of a Hermitian matrix."""
    return _types.linalg_eigh(ForwardRule.apply(_Eigenvectors(UPLO), A))


def eig(A: Tensor, **_: Any) -> Any:  # noqa: N803
    """Compute `torch.linalg.eig`."""
    return _types.linalg_eig(ForwardRule.apply(_EIGENVECTORS, A))


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:  # noqa: N803
    """Compute `torch.linalg.lu_solve` by two triangular systems."""
    if not left:
        return lu_solve(LU, pivots, B.mH, adjoint=not adjoint).mH
    p, low, up = torch.lu_unpack(LU, pivots)
    if adjoint:
        half = torch.linalg.solve_triangular(up.mH, B, upper=False)
        return p @ torch.linalg.solve_triangular(low.mH, half, upper=True, unitriangular=True)
    half = torch.linalg.solve_triangular(low, p.mT @ B, upper=False, unitriangular=True)
    return torch.linalg.solve_triangular(up, half, upper=True)


def _triangular_solve(
    input: Tensor,
    A: Tensor,  # noqa: N803 torch's name
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> Any:
    """Compute `torch.triangular_solve`, whose forward derivative is wrong under a gradient in torch 2.13."""
    part = A.triu() if upper else A.tril()
    if transpose:
        part, upper = part.mT, not upper
    solution = torch.linalg.solve_triangular(part, input, upper=upper, unitriangular=unitriangular)
    return torch.return_types.triangular_solve((solution, A.clone()))


def _cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """Invert from a Cholesky factor. torch's gradient is wrong for a matrix that is not triangular."""
    factor = input.triu().mH if upper else input.tril()
    identity = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device)
    half = torch.linalg.solve_triangular(factor, identity, upper=False)
    return half.mH @ half


OVERRIDES = (
    Override([torch.linalg.solve], Where.ALWAYS, solve),
    Override([torch.linalg.solve_ex], Where.ALWAYS, solve_ex),
    Override([torch.linalg.tensorsolve], Where.ALWAYS, tensorsolve),
    Override([torch.linalg.det], Where.ALWAYS, determinant),
    Override([torch.det, Tensor.det], Where.ALWAYS, lambda input: determinant(input)),
    Override([torch.linalg.slogdet], Where.ALWAYS, slogdet),
    Override([torch.slogdet, Tensor.slogdet], Where.ALWAYS, lambda input: slogdet(input)),
    Override([torch.logdet, Tensor.logdet], Where.ALWAYS, logdet),
    Override([torch.linalg.eigh], Where.FORWARD_MODE, by_finite_input(eigh)),
    Override([torch.linalg.eig], Where.FORWARD_MODE, by_finite_input(eig)),
    Override([torch.linalg.eigvals], Where.FORWARD_MODE, by_finite_input(lambda *args, **kw: eig(*args, **kw)[0])),
    Override([torch.linalg.eigvalsh], Where.FORWARD_MODE, by_finite_input(lambda *args, **kw: eigh(*args, **kw)[0])),
    Override(
        [torch.linalg.householder_product, torch.orgqr, Tensor.orgqr],
        Where.FORWARD_MODE,
        formulas.householder_product,
    ),
    Override([torch.linalg.lu_solve], Where.ALWAYS, lu_solve),
    Override([torch.triangular_solve, Tensor.triangular_solve], Where.ALWAYS, _triangular_solve),
    Override([torch.cholesky_inverse, Tensor.cholesky_inverse], Where.ALWAYS, _cholesky_inverse),
)

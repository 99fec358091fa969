"""Functions of matrices with right derivatives: the determinant, of singular matrices too, and the nuclear norm.

The nuclear norm Σ σᵢ is smooth where σᵢ + σⱼ > 0: equal singular values do no harm. torch differentiates the singular
values twice, by formulas that divide by σᵢ² - σⱼ². The first derivative is the polar factor U Vᴴ; its derivative
(Higham 2008, "Functions of Matrices", section 8) divides by σᵢ + σⱼ alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import differentiable, saved_primals, unwrap_closed_levels

from ._elementwise import with_value

_BLOCK = 4  # rows: a matrix whose rank is smaller by more has no derivative of an order up to this one, but zero


def determinant(a: Tensor, of_regular: Callable[[Tensor], Tensor], solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return det A. `of_regular` and `solve` are right for regular matrices.

    A = U Σ Vᴴ with constant U and V: det A = det U det Vᴴ det B with B = Uᴴ A V, which is Σ here. The last rows and
    columns of B hold the smallest singular values: their Schur complement is a small matrix, whose determinant is a
    polynomial.
    """
    followed = _expand(a) if a.shape[-1] <= _BLOCK else _by_blocks(a, of_regular, solve)
    return with_value(followed, torch.linalg.det(a.detach()))


def _by_blocks(a: Tensor, of_regular: Callable[[Tensor], Tensor], solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    u, sizes, vt = torch.linalg.svd(a.detach())
    sign = torch.linalg.det(u) * torch.linalg.det(vt)
    b = u.mH @ a @ vt.mH
    large, rest = b[..., :-_BLOCK, :-_BLOCK], b[..., -_BLOCK:, :-_BLOCK]
    kept = sizes[..., :-_BLOCK] > torch.finfo(a.dtype).eps * a.shape[-1] * sizes[..., :1]
    vanishes = ~kept.all(-1)  # more than four singular values are zero: so are the derivatives
    regular = torch.where(vanishes[..., None, None], torch.eye(large.shape[-1], dtype=a.dtype, device=a.device), large)
    complement = b[..., -_BLOCK:, -_BLOCK:] - rest @ solve(regular, b[..., :-_BLOCK, -_BLOCK:])
    return torch.where(vanishes, 0.0, sign * of_regular(regular) * _expand(complement))


def _expand(a: Tensor) -> Tensor:
    """Return the determinant of at most four rows as a polynomial, by minors of the first two rows."""
    n = a.shape[-1]
    if n < 2:
        return a[..., 0, 0] if n else torch.ones(a.shape[:-2], dtype=a.dtype, device=a.device)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    upper = {(i, j): _minor(a, 0, 1, i, j) for i, j in pairs}
    if n == 2:
        return upper[0, 1]
    if n == 3:
        return a[..., 2, 2] * upper[0, 1] - a[..., 2, 1] * upper[0, 2] + a[..., 2, 0] * upper[1, 2]
    terms = []
    for i, j in pairs:
        k, m = sorted({0, 1, 2, 3} - {i, j})
        terms.append((-1) ** (i + j + 1) * upper[i, j] * _minor(a, 2, 3, k, m))
    return torch.stack(terms).sum(0)


def _minor(a: Tensor, r: int, s: int, i: int, j: int) -> Tensor:
    return a[..., r, i] * a[..., s, j] - a[..., r, j] * a[..., s, i]


def nuclear_norm(x: Tensor, dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Compute `torch.linalg.matrix_norm(x, "nuc")`; second derivatives along σᵢ = σⱼ = 0 are zero."""
    matrix = (x if dtype is None else x.to(dtype)).movedim(tuple(dim), (-2, -1))
    value = torch.linalg.matrix_norm(matrix.detach(), "nuc")
    norm = with_value(_Nuclear.apply(matrix), value)
    for i in sorted(i % x.ndim for i in dim) if keepdim else ():
        norm = norm.unsqueeze(i)
    return norm


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return u, s, vh


def _turned(x: Tensor, t: Tensor) -> Tensor:
    """Return the derivative of the polar factor along `t`; this linear map is its own adjoint."""
    u, s, vh = _svd(x)
    inner = u.mH @ t @ vh.mH
    sums = s.unsqueeze(-1) + s.unsqueeze(-2)
    turned = u @ (torch.where(sums == 0, 0.0, inner - inner.mH) / torch.where(sums == 0, 1.0, sums)).to(u.dtype) @ vh
    over = torch.where(s == 0, 0.0, 1 / torch.where(s == 0, 1.0, s)).to(u.dtype).unsqueeze(-1)
    if x.shape[-2] > x.shape[-1]:
        turned = turned + (t @ vh.mH - u @ inner) @ (over * vh)
    if x.shape[-2] < x.shape[-1]:
        turned = turned + (u * over.mT) @ (u.mH @ t - inner @ vh)
    return turned


class _OfMatrix(torch.autograd.Function):
    """The rules of a function of a matrix."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)


class _Polar(_OfMatrix):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        u, _, vh = _svd(x)
        return u @ vh

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _turned(unwrap_closed_levels(ctx.saved_tensors[0]), cotangents[0])

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _turned(saved_primals(ctx)[0], tangents[0])


class _Nuclear(_OfMatrix):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x).sum(-1)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return cotangents[0][..., None, None] * _Polar.apply(unwrap_closed_levels(ctx.saved_tensors[0]))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return (_Polar.apply(saved_primals(ctx)[0]).conj() * tangents[0]).sum((-2, -1)).real

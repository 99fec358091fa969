"""Singular values and norms of matrices by them, with second derivatives that are right where values are equal too.

Where no two are almost equal, torch's own derivatives are right. Else rules run. The derivative of Σ cᵢ σᵢ is
X = U diag(c) Vᴴ. With constant c and P = Uᴴ dA V, the derivative of X is U Q Vᴴ: Q is the Hermitian part of P times
(cⱼ - cᵢ) / (σⱼ - σᵢ), plus the skew part times (cᵢ + cⱼ) / (σᵢ + σⱼ) (Lewis and Sendov 2005, "Nonsmooth analysis of
singular values"). torch divides by σᵢ² - σⱼ² in any case. Here equal c over equal σ count as 0, as in the nuclear norm,
and so does what has no limit: a kink. So the second derivatives of norms are right wherever they exist.

Where singular values themselves go into a nonlinear function, the coefficients c change with them. At a tie the first
quotient tends to ∂cⱼ/∂σⱼ - ∂cᵢ/∂σⱼ, if the function is symmetric. The rules cannot find it: the function sees dσ alone,
the diagonal of P. Where that is 0, as along ones beside the diagonal at A = I, so is dc for every function. In another
basis P is diagonal, one for each direction. A backward pass from c or σ knows no direction, so only the forward
derivative of a gradient could take that basis. So the result is NaN, as in torch and JAX.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.transforms.calls import differentiable, saved_primals, unwrap_closed_levels
from torchpure.transforms.engine import all_between, may_look


def singular_values(A: Tensor, value: Tensor | None = None, **other: Any) -> Tensor:  # noqa: N803 torch's name
    """Compute `torch.linalg.svdvals`, whose value may be known."""
    sizes, are_right = _sizes(A, _APART, value, **other)
    return sizes if are_right else _SingularValues.apply(A, sizes)


def spectral_norm(x: Tensor, ord: Any, dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Compute `torch.linalg.matrix_norm(x, ord)` of the orders "nuc", 2 and -2.

    Each is a sum of singular values with constant coefficients. At a tie of the largest or of the smallest one, each of
    those counts alike, and the second derivative is that of a kink: zero across it.
    """
    matrix = (x if dtype is None else x.to(dtype)).movedim(tuple(dim), (-2, -1))
    norm = _norm_of(matrix, ord, *_sizes(matrix, _APART if ord == "nuc" else _APART_FROM_ONE))
    for i in sorted(i % x.ndim for i in dim) if keepdim else ():
        norm = norm.unsqueeze(i)
    return norm


def condition_number(A: Tensor, p: Any = None) -> Tensor:  # noqa: N803 torch's name
    """Compute `torch.linalg.cond`; those by other norms than 2 and -2 are torch's."""
    if p not in {None, 2, -2}:
        return torch.linalg.cond(A, p)
    found = _sizes(A, _APART_FROM_ONE)
    largest, smallest = _norm_of(A, 2, *found), _norm_of(A, -2, *found)
    return smallest / largest if p == -2 else largest / smallest


# Powers of eps. Where singular values of size 1 differ by more, torch's second derivatives are right. Those of a sum
# lose a third of the digits at most. Those of the largest or the smallest one alone lose none to ties of others
_APART, _APART_FROM_ONE = 1 / 3, 2 / 3


def _sizes(matrix: Tensor, apart: float, value: Tensor | None = None, **other: Any) -> tuple[Tensor, bool]:
    """Return the singular values, with torch's derivatives or without any, and whether torch's two first are right.

    They are not where two are almost equal, or where one is almost zero. Those of complex numbers cannot be mapped.
    """
    looks = not matrix.is_complex() and may_look(2, matrix)
    if value is None:
        value = torch.linalg.svdvals(matrix if looks else matrix.detach(), **other)
    sizes = value.detach()
    if looks:
        gaps = sizes - F.pad(sizes[..., 1:], (0, 1))
        looks = all_between(gaps / sizes[..., :1], torch.finfo(sizes.dtype).eps ** apart, 1.0)
    return (value, True) if looks else (sizes, False)


def _norm_of(matrix: Tensor, ord: Any, sizes: Tensor, are_right: bool) -> Tensor:
    """Return the norm of a matrix whose singular values are known, with derivatives or without."""
    if are_right and sizes.shape[-1]:
        return sizes.sum(-1) if ord == "nuc" else sizes[..., 0 if ord == 2 else -1]
    if ord == "nuc":
        return _WeightedSum.apply(matrix, torch.ones_like(sizes), sizes.sum(-1))
    value = sizes.amax(-1) if ord == 2 else sizes.amin(-1)
    chosen = (sizes == value.unsqueeze(-1)).to(sizes.dtype)
    return _WeightedSum.apply(matrix, chosen / chosen.sum(-1, keepdim=True), value)


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return u, s, vh


def _parts(inner: Tensor) -> tuple[Tensor, Tensor]:
    return (inner + inner.mH) / 2, (inner - inner.mH) / 2


def _over(a: Tensor, b: Tensor, none: Tensor, otherwise: Any = 0.0) -> Tensor:
    """Return a / b, and `otherwise` where `none` holds."""
    return torch.where(none, otherwise, a / torch.where(none, 1.0, b))


def _diagonal(s: Tensor) -> Tensor:
    return torch.eye(s.shape[-1], dtype=torch.bool, device=s.device)


def _is_rounding(gaps: Tensor, s: Tensor, x: Tensor) -> Tensor:
    """Return whether differences of numbers `s`, of the size of singular values of `x`, may be zero."""
    return gaps.abs() <= torch.finfo(s.dtype).eps * max(x.shape[-2:]) * s.amax(-1)[..., None, None]


def _derivative(x: Tensor, c: Tensor, t: Tensor, is_constant: bool) -> Tensor:
    """Return the derivative of U diag(c) Vᴴ along `t`, without that of `c`; this linear map is its own adjoint."""
    u, s, vh = _svd(x)
    inner = u.mH @ t @ vh.mH
    even, odd = _parts(inner)
    gaps, sums = s.unsqueeze(-2) - s.unsqueeze(-1), s.unsqueeze(-2) + s.unsqueeze(-1)
    c_gaps, c_sums = c.unsqueeze(-2) - c.unsqueeze(-1), c.unsqueeze(-2) + c.unsqueeze(-1)
    tied = _is_rounding(gaps, s, x)
    across, along = _over(c_gaps, gaps, tied if is_constant else gaps == 0), _over(c_sums, sums, sums == 0)
    turned = across.to(u.dtype) * even + along.to(u.dtype) * odd
    sides = _over(c, s, s == 0)
    if not is_constant:
        taken = (c != 0).unsqueeze(-2) | (c != 0).unsqueeze(-1) | (gaps == 0)
        unknown = tied & _is_rounding(c_gaps, c.abs(), x) & taken & (even != 0) & ~_diagonal(s)
        turned = torch.where(unknown | ((sums == 0) & (c_sums == 0) & (odd != 0)), torch.nan, turned)
        sides = torch.where((s == 0) & (c == 0), torch.nan, sides)
    result = u @ turned @ vh
    if x.shape[-2] > x.shape[-1]:
        result = result + (t @ vh.mH - u @ inner) @ (sides.to(u.dtype).unsqueeze(-1) * vh)
    if x.shape[-2] < x.shape[-1]:
        result = result + (u * sides.to(u.dtype).unsqueeze(-2)) @ (u.mH @ t - inner @ vh)
    return result


def _second_rates(x: Tensor, t: Tensor, moved: Tensor) -> Tensor:
    """Return the derivative along `moved` of the rates of the singular values along `t`."""
    u, s, vh = _svd(x)
    inner, other = u.mH @ t @ vh.mH, u.mH @ moved @ vh.mH
    evens, odds = ((a * b.conj()).real for a, b in zip(_parts(inner), _parts(other), strict=True))
    gaps, sums = s.unsqueeze(-1) - s.unsqueeze(-2), s.unsqueeze(-1) + s.unsqueeze(-2)
    evens = torch.where(_is_rounding(gaps, s, x) & (evens != 0), torch.nan, evens)
    total = 2 * (_over(evens, gaps, _diagonal(s) | (evens == 0)) + _over(odds, sums, odds == 0)).sum(-1)
    if x.shape[-2] > x.shape[-1]:
        sides = ((t @ vh.mH - u @ inner) * (moved @ vh.mH).conj()).real.sum(-2)
        total = total + _over(sides, s, sides == 0)
    if x.shape[-2] < x.shape[-1]:
        sides = ((u.mH @ t - inner @ vh) * (u.mH @ moved).conj()).real.sum(-1)
        total = total + _over(sides, s, sides == 0)
    return total


class _OfMatrix(torch.autograd.Function):
    """The rules of a function of a matrix, and maybe of another tensor."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])


def _saved(ctx: Any) -> list[Tensor]:
    return [unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors]


def _total(*parts: Any) -> Any:
    """Return the sum of the parts that are there."""
    found = [part for part in parts if part is not None]
    return sum(found[1:], found[0]) if found else None


class _Rebuilt(_OfMatrix):
    """X = U diag(c) Vᴴ of a matrix A and coefficients c."""

    @staticmethod
    def forward(x: Tensor, c: Tensor) -> Tensor:
        u, _, vh = _svd(x)
        return (u * c.to(u.dtype).unsqueeze(-2)) @ vh

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (x, c), (cotangent,) = _saved(ctx), cotangents
        if cotangent is None:
            return None, None
        needs_x, needs_c = ctx.needs_input_grad
        return (
            _derivative(x, c, cotangent, not needs_c) if needs_x else None,
            _Rates.apply(x, cotangent) if needs_c else None,
        )

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (x, c), (dx, dc) = saved_primals(ctx), tangents
        return _total(
            None if dx is None else _derivative(x, c, dx, dc is None), None if dc is None else _Rebuilt.apply(x, dc)
        )


class _Rates(_OfMatrix):
    """The rates of the singular values of A along t: Re diag(Uᴴ t V)."""

    @staticmethod
    def forward(x: Tensor, t: Tensor) -> Tensor:
        u, _, vh = _svd(x)
        return ((u.mH @ t) * vh.conj()).real.sum(-1)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (x, t), (cotangent,) = _saved(ctx), cotangents
        if cotangent is None:
            return None, None
        needs_x, needs_t = ctx.needs_input_grad
        return (
            _derivative(x, cotangent, t, False) if needs_x else None,
            _Rebuilt.apply(x, cotangent) if needs_t else None,
        )

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (x, t), (dx, dt) = saved_primals(ctx), tangents
        return _total(None if dx is None else _second_rates(x, t, dx), None if dt is None else _Rates.apply(x, dt))


class _SingularValues(_OfMatrix):
    @staticmethod
    def forward(x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None if cotangents[0] is None else _Rebuilt.apply(_saved(ctx)[0], cotangents[0]), None

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return None if tangents[0] is None else _Rates.apply(saved_primals(ctx)[0], tangents[0])


class _WeightedSum(_OfMatrix):
    """Σ wᵢ σᵢ with constant weights w, and its value."""

    @staticmethod
    def forward(x: Tensor, weights: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        if cotangents[0] is None:
            return None, None, None
        return cotangents[0][..., None, None] * _Rebuilt.apply(*_saved(ctx)), None, None

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        if tangents[0] is None:
            return None
        return (_Rebuilt.apply(*saved_primals(ctx)).conj() * tangents[0]).sum((-2, -1)).real

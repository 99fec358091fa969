"""Functions of matrices with right derivatives: the determinant, of singular matrices too; singular values and norms.

The derivative of Σ cᵢ σᵢ is X = U diag(c) Vᴴ. With constant c and P = Uᴴ dA V, the derivative of X is U Q Vᴴ: Q is the
Hermitian part of P times (cⱼ - cᵢ) / (σⱼ - σᵢ), plus the skew part times (cᵢ + cⱼ) / (σᵢ + σⱼ) (Lewis and Sendov 2005,
"Nonsmooth analysis of singular values"). torch divides by σᵢ² - σⱼ² in any case. Here equal c over equal σ count as 0,
as in the nuclear norm, and so does what has no limit: a kink. So the second derivatives of norms are right wherever
they exist. Where singular values themselves go into a nonlinear function, the coefficients c change with them. Then
the limit at a tie is not known here, and the result is NaN, as in torch and JAX.
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


def singular_values(A: Tensor, value: Tensor | None = None, **other: Any) -> Tensor:  # noqa: N803 torch's name
    """Compute `torch.linalg.svdvals`, whose value may be known."""
    return _SingularValues.apply(A, torch.linalg.svdvals(A.detach(), **other) if value is None else value.detach())


def spectral_norm(x: Tensor, ord: Any, dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Compute `torch.linalg.matrix_norm(x, ord)` of the orders "nuc", 2 and -2.

    Each is a sum of singular values with constant coefficients. At a tie of the largest or of the smallest one, each of
    those counts alike, and the second derivative is that of a kink: zero across it.
    """
    matrix = (x if dtype is None else x.to(dtype)).movedim(tuple(dim), (-2, -1))
    sizes = torch.linalg.svdvals(matrix.detach())
    if ord == "nuc":
        value, weights = sizes.sum(-1), torch.ones_like(sizes)
    else:
        value = sizes.amax(-1) if ord == 2 else sizes.amin(-1)
        chosen = (sizes == value.unsqueeze(-1)).to(sizes.dtype)
        weights = chosen / chosen.sum(-1, keepdim=True)
    norm = _WeightedSum.apply(matrix, weights, value)
    for i in sorted(i % x.ndim for i in dim) if keepdim else ():
        norm = norm.unsqueeze(i)
    return norm


def condition_number(A: Tensor, p: Any = None) -> Tensor:  # noqa: N803 torch's name
    """Compute `torch.linalg.cond`; those by other norms than 2 and -2 are torch's."""
    if p not in {None, 2, -2}:
        return torch.linalg.cond(A, p)
    largest, smallest = spectral_norm(A, 2), spectral_norm(A, -2)
    return smallest / largest if p == -2 else largest / smallest


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return u, s, vh


def _parts(inner: Tensor) -> tuple[Tensor, Tensor]:
    return (inner + inner.mH) / 2, (inner - inner.mH) / 2


def _over(a: Tensor, b: Tensor, none: Tensor, otherwise: Any = 0.0) -> Tensor:
    """Return a / b, and `otherwise` where `none` holds."""
    return torch.where(none, otherwise, a / torch.where(none, 1.0, b))


def _derivative(x: Tensor, c: Tensor, t: Tensor, is_constant: bool) -> Tensor:
    """Return the derivative of U diag(c) Vᴴ along `t`, without that of `c`; this linear map is its own adjoint."""
    u, s, vh = _svd(x)
    inner = u.mH @ t @ vh.mH
    even, odd = _parts(inner)
    gaps, sums = s.unsqueeze(-2) - s.unsqueeze(-1), s.unsqueeze(-2) + s.unsqueeze(-1)
    c_gaps, c_sums = c.unsqueeze(-2) - c.unsqueeze(-1), c.unsqueeze(-2) + c.unsqueeze(-1)
    rounding = torch.finfo(s.dtype).eps * max(x.shape[-2:]) * s.amax(-1)[..., None, None]
    tied = gaps.abs() <= rounding if is_constant else gaps == 0
    across, along = _over(c_gaps, gaps, tied), _over(c_sums, sums, sums == 0)
    turned = across.to(u.dtype) * even + along.to(u.dtype) * odd
    sides = _over(c, s, s == 0)
    if not is_constant:
        same = torch.eye(s.shape[-1], dtype=torch.bool, device=s.device)
        unknown = (tied & (c_gaps == 0) & (even != 0) & ~same) | ((sums == 0) & (c_sums == 0) & (odd != 0))
        turned = torch.where(unknown, torch.nan, turned)
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
    same = torch.eye(s.shape[-1], dtype=torch.bool, device=s.device)
    total = 2 * (_over(evens, gaps, same | (evens == 0)) + _over(odds, sums, odds == 0)).sum(-1)
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

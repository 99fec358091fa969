"""Vector norms of every order, at zeros and over any range; distances, angles and standard deviations by them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.transforms.calls import differentiable, saved_primals, unwrap_closed_levels
from torchpure.transforms.engine import all_between, may_look

from ._elementwise import Elementwise, with_value
from ._of_two import atan2
from ._singular_values import spectral_norm


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **other: Any
) -> Tensor:
    """Compute `torch.linalg.vector_norm`: m (Σ |xᵢ/m|ᵖ)^(1/p) with m the largest |xᵢ|, a constant.

    The norm of zeros has derivative zero, as in torch.
    """
    dim, keepdim = other.get("axis", dim), other.get("keepdims", keepdim)  # torch takes NumPy's names too
    values = x if dtype is None else x.to(dtype)
    p = float(ord)
    if not _has_formula(values, p):
        return torch.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype)
    quick = right_in_torch(lambda: torch.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype), p, x)
    if quick is not None:
        return quick
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    value = torch.linalg.vector_norm(x.detach(), ord, dim, keepdim, dtype=dtype)
    if values.is_complex():
        parts = torch.view_as_real(values.resolve_conj())
        root = _root_of_sum(parts, p, (*(i % x.ndim for i in dims), x.ndim)).squeeze(-1)
    else:
        root = _root_of_sum(values, p, dims)
    return with_right_value(root if keepdim or not x.ndim else root.squeeze(dims), value, p)


def right_in_torch(run: Callable[[], Tensor], p: float, *tensors: Tensor, above: float = 0.0) -> Tensor | None:
    """Return a norm by torch where its value and its derivatives are right; None: take the formula.

    Torch's powers leave their range far out and near zero. Its third derivatives write in place, and those of complex
    numbers cannot be mapped. Of orders other than two, its second derivatives are wrong at zeros. A program looks at no
    numbers.
    """
    if not may_look(1 if p != 2 or tensors[0].is_complex() else 2, *tensors):
        return None
    value = run()
    smallest = smallest_norm(value.dtype, p)
    return value if all_between(value, max(smallest, above), 1 / smallest) else None


@lru_cache(maxsize=64)
def smallest_norm(dtype: torch.dtype, p: float) -> float:
    """Return the smallest norm whose powers are no denormal numbers."""
    limits = torch.finfo(dtype)
    return max(limits.tiny, (limits.tiny / limits.eps) ** (1 / p))


def _is_in_range(value: Tensor, p: float) -> Tensor:
    smallest = smallest_norm(value.dtype, p)
    return (value <= 1 / smallest) & (value >= smallest)


def power_of_two_to_range(*tensors: Tensor, p: float) -> Tensor:
    """Return 1, or the power of two that brings the largest number of some tensors near 1: shape (), a constant."""
    largest = torch.stack([leaf.detach().abs().amax() for leaf in tensors]).amax()
    usable = largest.isfinite() & (largest > 0) & ~_is_in_range(largest, p)
    return torch.where(usable, torch.exp2(-torch.where(usable, largest, 1.0).log2().floor()), 1.0)


def with_right_value(followed: Tensor, value: Tensor, p: float = 2.0) -> Tensor:
    """Return a norm by torch with the derivatives of `followed`; where torch's powers left their range, `followed`."""
    return with_value(followed, torch.where(_is_in_range(value, p), value, followed.detach()))


def _has_formula(x: Tensor, p: float) -> bool:
    if not x.numel() or p <= 0 or math.isinf(p):
        return False
    return p == 2 if x.dtype in {torch.complex64, torch.complex128} else p != 1 and x.dtype in _REAL


_REAL = frozenset({torch.float32, torch.float64})


def _root_of_sum(x: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    if p == 2:
        return _EuclideanNorm.apply(_Over(dims), x)
    largest, zero = _largest(x, dims)
    total = _power_of_size(x / largest, p).sum(dims, keepdim=True)
    zero = zero | (total == 0)
    return torch.where(zero, 1.0, total) ** (1 / p) * torch.where(zero, 0.0, largest)


def _largest(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the largest |xᵢ| as a constant to divide by, and where it is zero."""
    largest = x.detach().abs().amax(dims, keepdim=True)
    zero = largest == 0
    tiny = torch.finfo(x.dtype).tiny  # a denormal number has no reciprocal
    return torch.where(zero | largest.isinf(), 1.0, largest.clamp(min=tiny)), zero


@dataclass(frozen=True, slots=True)
class _Over:
    """Dimensions as one argument: torch flattens tuples."""

    dims: tuple[int, ...]


class _EuclideanNorm(torch.autograd.Function):
    """r = ‖x‖ over some dimensions, which stay: dr = u dx with u = x / r, and u = 0 at 0. No square overflows."""

    generate_vmap_rule = True

    @staticmethod
    def forward(over: _Over, x: Tensor) -> Tensor:
        largest, _ = _largest(x, over.dims)
        return torch.sqrt(((x / largest) ** 2).sum(over.dims, keepdim=True)) * largest

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.over = inputs[0]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, cotangents[0] * _unit(ctx.over, unwrap_closed_levels(ctx.saved_tensors[0]))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, tangent: Any) -> Any:
        return (tangent * _unit(ctx.over, saved_primals(ctx)[0])).sum(ctx.over.dims, keepdim=True)


def _unit(over: _Over, x: Tensor) -> Tensor:
    size = _EuclideanNorm.apply(over, x)
    zero = size == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, size))


def _power_of_size(x: Tensor, p: float) -> Tensor:
    """Return |x|ᵖ: a polynomial if p is even."""
    return x ** int(p) if p % 2 == 0 else _size(p, False)(x)


@lru_cache(maxsize=64)
def _size(p: float, signed: bool) -> Elementwise:
    """Return |x|ᵖ, with the sign of x or without."""

    def value(x: Tensor) -> Tensor:
        return torch.sgn(x) * x.abs() ** p if signed else x.abs() ** p

    def derivative(x: Tensor) -> Tensor:
        return p * _size(p - 1, not signed)(x) if p else torch.zeros_like(x)

    return Elementwise("vector_norm", value, (derivative,))


def dist(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """Compute `torch.dist`."""
    return vector_norm(input - other, p)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Compute `F.cosine_similarity`."""
    # below eps torch takes a size for the constant eps, and lets its derivative through
    if may_look(2, x1, x2) and all(_size_in_torch(x.detach(), 2, dim, eps) is not None for x in (x1, x2)):
        return F.cosine_similarity(x1, x2, dim, eps)
    first, second = (normalized(x, 2, dim, eps) for x in torch.broadcast_tensors(x1, x2))
    return (first * second).sum(dim)


def _size_in_torch(x: Tensor, p: float, dim: Any, above: float = 0.0) -> Tensor | None:
    if not _has_formula(x, float(p)):
        return None
    return right_in_torch(lambda: torch.linalg.vector_norm(x, p, dim, True), p, x, above=above)


def normalized(x: Tensor, p: float, dim: Any, eps: float) -> Tensor:
    """Return x / max(‖x‖, eps); numbers of size one are divided, so that no derivative leaves the range of floats."""
    size = _size_in_torch(x, p, dim)
    if size is not None:
        return x / size.clamp_min(eps)
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    largest, _ = _largest(x, dims)
    scaled = x / largest
    return scaled / torch.maximum(vector_norm(scaled, p, dims, True), eps / largest)


def std(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """Compute `torch.std`; where all numbers are equal its derivative is zero, as in torch's backward pass."""
    if isinstance(dim, bool):  # torch.std(input, unbiased)
        dim, unbiased = None, dim
    given = {"dim": dim, "correction": correction, "keepdim": keepdim} if unbiased is None else {}
    quick = right_in_torch(lambda: torch.std(input, **given), 2.0, input) if given else None
    if quick is not None:
        return quick
    less = float(correction) if correction is not None else 1.0 if unbiased is None else float(unbiased)
    dims = tuple(range(input.ndim)) if dim is None or dim == () else dim
    centred = input - input.mean(dims, keepdim=True)
    spread = vector_norm(centred, 2, dims, keepdim)
    count = input.numel() / max(spread.numel(), 1)
    value = torch.std(input.detach(), dims, correction=less, keepdim=keepdim)
    followed = spread / math.sqrt(max(count - less, 0.0)) if count > less else spread * math.nan
    return with_right_value(followed, value)


def std_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """Compute `torch.std_mean`."""
    if isinstance(dim, bool):  # torch.std_mean(input, unbiased)
        dim, unbiased = None, dim
    mean = input.mean(None if dim == () else dim, keepdim)
    return std(input, dim, unbiased, keepdim, **other), mean


def linalg_norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **other: Any) -> Tensor:
    """Compute `torch.linalg.norm`; those of matrices by singular values are torch's."""
    dim, keepdim = other.pop("axis", dim), other.pop("keepdims", keepdim)
    if ord is None or (isinstance(ord, int | float) and (isinstance(dim, int) or (dim is None and x.ndim == 1))):
        return vector_norm(x, 2 if ord is None else ord, dim, keepdim, **other)
    if ord == "fro":
        return vector_norm(x, 2, (-2, -1) if dim is None else dim, keepdim, **other)
    if ord == "nuc" and x.ndim > 1:
        return spectral_norm(x, "nuc", (-2, -1) if dim is None else dim, keepdim, **other)
    return torch.linalg.norm(x, ord, dim, keepdim, **other)


def norm(
    x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Tensor:
    """Compute `torch.norm`."""
    if out is None and (p in {"fro", None} or isinstance(p, int | float)):
        return vector_norm(x, 2 if p in {"fro", None} else p, dim, keepdim, dtype=dtype)
    if out is None and p == "nuc" and x.ndim > 1:
        return spectral_norm(x, "nuc", (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return torch.norm(x, p, dim, keepdim, out, dtype)


def abs(input: Tensor) -> Tensor:
    """Compute `torch.abs` of complex numbers: at 0 its derivative is 0."""
    return vector_norm(input.unsqueeze(-1), 2, -1)


def angle(input: Tensor) -> Tensor:
    """Compute `torch.angle` of complex numbers: at 0 its derivative is 0."""
    return atan2(input.imag, input.real)


def sgn(input: Tensor) -> Tensor:
    """Compute `torch.sgn` of complex numbers, z / |z|: at 0 its derivative is 0."""
    zero = input == 0
    return torch.where(zero, 0.0, input / torch.where(zero, 1.0, abs(input)))

"""Products, running products and determinants without a division, so that zeros are no special case."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import ForwardRule, ForwardRuleCall
from torchpure.transforms.engine import all_between, is_variable, may_look

from ._elementwise import with_value
from ._safe_product import safe_product

_BLOCK = 4  # rows: a matrix whose rank is smaller by more has no derivative of an order up to this one, but zero


class _Product(ForwardRuleCall):
    """∏ xᵢ over the last dimension: d ∏ xᵢ = Σⱼ dxⱼ ∏_{i≠j} xᵢ."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return (torch.prod(tensors[0], -1),)

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        return [safe_product(tangents[0], products_of_others(tensors[0])).sum(-1)]


class _RunningProduct(ForwardRuleCall):
    """yₖ = ∏_{i≤k} xᵢ over the last dimension: dyₖ = dyₖ₋₁ xₖ + yₖ₋₁ dxₖ, in log n steps."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return (torch.cumprod(tensors[0], -1),)

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        y, moved, shift = tensors[0], tangents[0], 1
        while shift < y.shape[-1]:
            left, right = y[..., :-shift], y[..., shift:]
            pushed = safe_product(moved[..., :-shift], right) + safe_product(left, moved[..., shift:])
            moved = torch.cat([moved[..., :shift], pushed], -1)
            y = torch.cat([y[..., :shift], safe_product(left, right)], -1)
            shift *= 2
        return [moved]


_PRODUCT, _RUNNING_PRODUCT = _Product(), _RunningProduct()


def products_of_others(x: Tensor) -> Tensor:
    """Return ∏_{i≠j} xᵢ over the last dimension for each j: products up a binary tree, and down again.

    >>> products_of_others(torch.tensor([2.0, 3.0, 5.0]))
    tensor([15., 10.,  6.])
    """
    size, levels = x.shape[-1], [x]
    while levels[-1].shape[-1] > 1:
        level = levels[-1]
        if level.shape[-1] % 2:
            level = levels[-1] = torch.cat([level, torch.ones_like(level[..., :1])], -1)
        levels.append(safe_product(level[..., 0::2], level[..., 1::2]))
    others = torch.ones_like(levels.pop())
    while levels:
        pairs = levels.pop().unflatten(-1, (-1, 2))
        others = safe_product(others[..., : pairs.shape[-2], None], pairs.flip(-1)).flatten(-2)
    return others[..., :size]


def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Compute `torch.prod`."""
    x = input if dtype is None else input.to(dtype)
    if not is_variable(x) or (dim is None and keepdim):
        return torch.prod(input, dim, keepdim, dtype=dtype) if dim is not None else torch.prod(input, dtype=dtype)
    quick = None if x.is_complex() or not may_look(1, x) else _plain(torch.prod, x, dim, keepdim)
    if quick is not None:
        return quick
    if dim is None or x.ndim == 0:
        return _over_last(x.flatten() if dim is None else x.reshape(1))
    out = _over_last(x.movedim(dim, -1))
    return out.unsqueeze(dim) if keepdim else out


def _plain(operation: Any, x: Tensor, dim: Any, keepdim: bool) -> Tensor | None:
    """Return a product by torch, which divides by the factors: right if no factor and no product leaves its range."""
    limits = torch.finfo(x.dtype)
    value = operation(x) if dim is None else operation(x, dim, keepdim)
    return value if all_between(value.detach().abs(), limits.tiny, limits.max) else None


def _over_last(x: Tensor) -> Tensor:
    return ForwardRule.apply(_PRODUCT, x)[0] if x.shape[-1] else torch.prod(x, -1)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Compute `torch.cumprod`."""
    x = input if dtype is None else input.to(dtype)
    if not is_variable(x) or not x.ndim or not x.numel():
        return torch.cumprod(input, dim, dtype=dtype)
    return ForwardRule.apply(_RUNNING_PRODUCT, x.movedim(dim, -1))[0].movedim(-1, dim)


def vander(x: Tensor, N: Any = None, *, increasing: bool = True) -> Tensor:  # noqa: N803 torch's name
    """Compute `torch.linalg.vander`: rows of powers, by running products."""
    count = x.shape[-1] if N is None else N
    if not is_variable(x) or count < 2:
        return torch.linalg.vander(x, N=count)
    repeated = x.unsqueeze(-1).expand(*x.shape, count - 1)
    powers = torch.cat([torch.ones_like(repeated[..., :1]), cumprod(repeated, -1)], -1)
    return powers if increasing else powers.flip(-1)


def scatter_product(input: Tensor, dim: int, index: Tensor, src: Tensor, *, include_self: bool = True) -> Tensor:
    """Compute `torch.scatter_reduce` with "prod": products of runs of equal positions, in log n steps."""
    if not index.numel() or not input.ndim:
        return torch.scatter_reduce(input, dim, index, src, "prod", include_self=include_self)
    dim = dim % input.ndim
    value = torch.scatter_reduce(input.detach(), dim, index, src.detach(), "prod", include_self=include_self)
    given = src[tuple(slice(size) for size in index.shape)]
    order = torch.argsort(index, dim=dim, stable=True)
    positions, products = index.gather(dim, order).movedim(dim, -1), given.gather(dim, order).movedim(dim, -1)
    products = _products_of_runs(products, positions)
    ends = torch.cat(
        [positions[..., 1:] != positions[..., :-1], torch.ones_like(positions[..., :1], dtype=torch.bool)], -1
    )
    last = torch.where(ends, products, 0.0).movedim(-1, dim)
    met = torch.zeros_like(input, dtype=torch.bool).scatter(dim, index, True)
    placed = torch.zeros_like(input).scatter_add(dim, positions.movedim(-1, dim), last)
    kept = input if include_self else torch.where(met, 1.0, input)
    return with_value(safe_product(kept, torch.where(met, placed, 1.0)), value)


def _products_of_runs(x: Tensor, positions: Tensor) -> Tensor:
    """Return running products over the last dimension, which start again where the position changes."""
    shift = 1
    while shift < x.shape[-1]:
        same = positions[..., shift:] == positions[..., :-shift]
        x = torch.cat([x[..., :shift], safe_product(x[..., shift:], torch.where(same, x[..., :-shift], 1.0))], -1)
        shift *= 2
    return x


def index_product(input: Tensor, dim: int, index: Tensor, source: Tensor, *, include_self: bool = True) -> Tensor:
    """Compute `torch.index_reduce` with "prod"."""
    if not input.ndim or not index.ndim:
        return torch.index_reduce(input, dim, index, source, "prod", include_self=include_self)
    sizes = [-1 if i == dim % input.ndim else 1 for i in range(input.ndim)]
    return scatter_product(input, dim, index.reshape(sizes).expand(source.shape), source, include_self=include_self)


def householder_product(input: Tensor, tau: Tensor) -> Tensor:
    """Compute `torch.linalg.householder_product`: reflections I - tau v v^H, one after another."""
    rows, columns = input.shape[-2:]
    below = torch.arange(rows, device=input.device)
    product = torch.eye(rows, columns, dtype=input.dtype, device=input.device)
    for k in reversed(range(tau.shape[-1])):
        v = torch.where(below > k, input[..., k], (below == k).to(input.dtype)).unsqueeze(-1)
        product = product - tau[..., k, None, None] * v @ (v.mH @ product)
    return with_value(product, torch.linalg.householder_product(input.detach(), tau.detach()))


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

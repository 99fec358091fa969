"""Determinants with right derivatives of every order, of singular matrices too."""

from collections.abc import Callable

import torch
from torch import Tensor

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

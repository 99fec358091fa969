"""GMRES with restarts, without a matrix (Saad & Schultz 1986)."""

import torch
from torch import Tensor

from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms import fori_loop, while_loop

from ._linear_system import MatVec, System, divide, linear_system, norm


def solve_gmres(
    matvec: MatVec,
    b: Tree,
    ridge: float | Tensor = 0.0,
    init: Tree = None,
    *,
    restart: int = 20,
    maxiter: int | None = None,
    tol: float | None = None,
) -> Tree:
    """Solve (A + ridge I) x = b for any regular A, given as `matvec(v)` = A v.

    Each iteration builds a Krylov space of `restart` dimensions, and takes the best x in it. It
    stores `restart` vectors like b, and needs `restart` products. All else is as in `solve_cg`.

    Raises:
        TransformError: `restart` is below 1, or as in `solve_cg`.
        StructureError: as in `solve_cg`.

    >>> rotate = lambda v: torch.stack([-v[1], v[0]])
    >>> solve_gmres(rotate, torch.tensor([1.0, 2.0])).round(decimals=3)
    tensor([ 2., -1.])
    """
    if type(restart) is not int or restart < 1:
        raise TransformError(f"solve_gmres: restart must be an int of at least 1, got {restart!r}")
    system = linear_system("solve_gmres", matvec, b, ridge, init, maxiter, tol)
    size = min(restart, system.b.numel())

    def unfinished(carry: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        _, residual, count = carry
        return (norm(residual) > system.threshold) & (count < system.maxiter)

    def step(carry: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x, residual, count = carry
        x = x + _correction(system, residual, size)
        return x, system.b - system.matvec(x), count + 1

    count = torch.zeros((), dtype=torch.int64, device=system.b.device)
    first = system.b - system.matvec(system.start)
    x, residual, _ = while_loop(unfinished, step, (system.start, first, count))
    # nothing of b was reached: A is singular. NaN, not a value that looks like a solution
    stuck = (norm(residual) > system.threshold) & (norm(residual) >= 0.999 * norm(system.b))
    return system.unravel(torch.where(stuck, torch.nan, x))


def _correction(system: System, residual: Tensor, size: int) -> Tensor:
    """Return the vector of the Krylov space that makes the residual smallest."""
    length = norm(residual)
    rows = torch.arange(size + 1, device=residual.device)
    basis = torch.where((rows == 0)[:, None], divide(residual, length), torch.zeros_like(residual))

    def arnoldi(k: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        basis, hessenberg = carry
        vector = system.matvec((basis * (rows == k)[:, None]).sum(0))
        coefficients = basis @ vector
        vector = vector - coefficients @ basis
        again = basis @ vector  # a second projection keeps the basis orthogonal
        vector = vector - again @ basis
        height = norm(vector)
        # a new direction that is rounding only would spoil the basis: the space is complete
        height = torch.where(height > 10 * torch.finfo(vector.dtype).eps * norm(coefficients), height, 0 * height)
        is_next = rows == k + 1
        column = coefficients + again + torch.where(is_next, height, 0 * height)
        basis = torch.where(is_next[:, None], divide(vector, height) * (height > 0), basis)
        return basis, torch.where(rows[:-1] == k, column[:, None], hessenberg)

    hessenberg = (basis[:, :1] * 0).expand(size + 1, size).clone()
    basis, hessenberg = fori_loop(0, size, arnoldi, (basis, hessenberg))
    weights = torch.linalg.pinv(hessenberg)[:, 0] * length  # columns after a complete space are zero
    return weights @ basis[:-1]

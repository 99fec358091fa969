"""Conjugate gradients without a matrix (Hestenes & Stiefel 1952), for A and for the normal equations AᵀA."""

import torch
from torch import Tensor

from torchpure._types import Tree
from torchpure.transforms import vjp, while_loop

from ._linear_system import MatVec, System, divide, linear_system, norm


def solve_cg(
    matvec: MatVec,
    b: Tree,
    ridge: float | Tensor = 0.0,
    init: Tree = None,
    *,
    maxiter: int | None = None,
    tol: float | None = None,
) -> Tree:
    """Solve (A + ridge I) x = b for a symmetric positive definite A, given as `matvec(v)` = A v.

    `b` is a tree of tensors, and x has its structure. The solver stops after `maxiter` steps (default: ten times the
    number of unknowns), or when the residual is below `tol` times the norm of b (default: eps^0.75). The result is then
    the last iterate, without an error; it is NaN where A is seen to be singular. It is a constant for derivatives:
    `custom_root` makes solutions differentiable.

    Raises:
        TransformError: `b` has another leaf than a real floating point tensor, or a number is out of range.
        StructureError: `matvec(v)` is not like b.

    >>> solve_cg(lambda v: {"x": 4 * v["x"]}, {"x": torch.ones(2)})
    {'x': tensor([0.2500, 0.2500])}
    """
    system = linear_system("solve_cg", matvec, b, ridge, init, maxiter, tol)
    return system.unravel(_iterate(system))


def solve_normal_cg(
    matvec: MatVec,
    b: Tree,
    ridge: float | Tensor = 0.0,
    init: Tree = None,
    *,
    maxiter: int | None = None,
    tol: float | None = None,
) -> Tree:
    """Solve A x = b for any regular A, by conjugate gradients on (AᵀA + ridge I) x = Aᵀb.

    The transpose of `matvec` is found by `tp.vjp`. The condition number is squared: `solve_gmres` is better for systems
    that are hard to solve. All else is as in `solve_cg`.

    Raises:
        TransformError: as in `solve_cg`.
        StructureError: as in `solve_cg`.

    >>> rotate = lambda v: torch.stack([-v[1], v[0]])
    >>> solve_normal_cg(rotate, torch.tensor([1.0, 2.0]))
    tensor([ 2., -1.])
    """
    plain = linear_system("solve_normal_cg", matvec, b, 0.0, init, maxiter, tol)
    _, pull = vjp(plain.matvec, torch.zeros_like(plain.b))

    def normal(v: Tensor) -> Tensor:
        return pull(plain.matvec(v))[0] + ridge * v

    right = pull(plain.b)[0]
    relative = torch.finfo(right.dtype).eps ** 0.75 if tol is None else tol
    found = _iterate(plain._replace(matvec=normal, b=right, threshold=relative * norm(right)))
    unsolvable = (right == 0).all() & (plain.b != 0).any()  # b is orthogonal to all that A reaches
    return plain.unravel(torch.where(unsolvable, torch.nan, found))


def _iterate(system: System) -> Tensor:
    residual = system.b - system.matvec(system.start)
    squared = (residual * residual).sum()
    limit = system.threshold**2

    def unfinished(carry: tuple[Tensor, ...]) -> Tensor:
        *_, squared, count = carry
        return (squared > limit) & (count < system.maxiter)

    def step(carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, residual, direction, squared, count = carry
        image = system.matvec(direction)
        curvature = (direction * image).sum()
        # without curvature along an open direction A is singular: NaN, not a value that looks like a solution
        length = torch.where((curvature == 0) & (squared > limit), torch.nan, divide(squared, curvature))
        residual = residual - length * image
        new = (residual * residual).sum()
        return x + length * direction, residual, residual + divide(new, squared) * direction, new, count + 1

    count = torch.zeros((), dtype=torch.int64, device=residual.device)
    return while_loop(unfinished, step, (system.start, residual, residual.clone(), squared, count))[0]

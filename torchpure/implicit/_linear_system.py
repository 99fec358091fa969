"""A linear system of trees as one of vectors: checks, ridge, first guess and tolerance, which the solvers share."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

MatVec = Callable[[Tree], Tree]  # v -> A v: both are trees like the right-hand side


class System(NamedTuple):
    """The system (A + ridge I) x = b of n unknowns."""

    matvec: Callable[[Tensor], Tensor]  # shape (n,) -> (n,)
    b: Tensor  # shape (n,)
    start: Tensor  # shape (n,)
    threshold: Tensor  # shape (): a residual below this norm is small enough
    maxiter: int
    unravel: Callable[[Tensor], Tree]


def linear_system(
    caller: str,
    matvec: MatVec,
    b: Tree,
    ridge: float | Tensor,
    init: Tree,
    maxiter: int | None,
    tol: float | None,
) -> System:
    """Check the arguments of a solver, and write its system with vectors."""
    if not callable(matvec):
        raise TransformError(f"{caller}: matvec must be a function, got {tree.describe(matvec)}")
    if maxiter is not None and (type(maxiter) is not int or maxiter < 1):
        raise TransformError(f"{caller}: maxiter must be an int of at least 1, or None, got {maxiter!r}")
    if tol is not None and not tol >= 0:
        raise TransformError(f"{caller}: tol must be at least 0, or None, got {tol!r}")
    for path, leaf in zip(tree.paths(b), tree.leaves(b), strict=True):
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            raise TransformError(
                f"{caller}: b must have real floating point tensors only, got {tree.describe(leaf)} at `{path}`"
            )
    vector, unravel = tree.ravel(b)

    def product(v: Tensor) -> Tensor:
        out = matvec(unravel(v))
        tree.check_same(b, out, caller=f"{caller}: the result of matvec against b")
        flat = tree.ravel(out)[0]
        if flat.shape != v.shape:
            raise TransformError(
                f"{caller}: matvec must keep the shapes of b: {v.numel()} numbers became {flat.numel()}"
            )
        return flat + ridge * v

    relative = torch.finfo(vector.dtype).eps ** 0.75 if tol is None else tol
    start = torch.zeros_like(vector) if init is None else tree.ravel(init)[0]
    return System(product, vector, start, relative * norm(vector), maxiter or 10 * vector.numel(), unravel)


def norm(v: Tensor) -> Tensor:
    """Return the Euclidean norm. Solvers are not differentiated, so the derivative at zero does not matter."""
    return (v * v).sum().sqrt()


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Divide, and give 0 where the divisor is 0: a solver that has converged stays where it is."""
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))

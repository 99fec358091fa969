"""Solution with the matrix itself, or by Neumann's series."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from torchpure.compat.torchopt import linalg
from torchpure.compat.torchopt.typing import LinearSolver

from .utils import dense_matrix, make_ridge_matvec

__all__ = ["solve_inv"]


def _solve_inv(
    matvec: Callable[[Any], Any], b: Any, ridge: float | None = None, ns: bool = False, **kwargs: Any
) -> Any:
    operator = matvec if ridge is None else make_ridge_matvec(matvec, ridge)
    if ns:
        return linalg.ns(operator, b, **kwargs)
    matrix, ravel, unravel = dense_matrix(operator, b)
    return unravel(torch.linalg.solve(matrix, ravel(b)))


def solve_inv(**kwargs: Any) -> LinearSolver:
    """Make a solver `(matvec, b) → x` that forms the whole matrix, or sums Neumann's series if `ns`.

    Arguments: `ridge`, `ns`, and those of `linalg.ns`. torchopt's uses the diagonal blocks alone, one for each leaf.

    >>> import torch
    >>> solve_inv()(lambda x: 2 * x, torch.ones(2))
    tensor([0.5000, 0.5000])
    """
    return functools.partial(_solve_inv, **kwargs)

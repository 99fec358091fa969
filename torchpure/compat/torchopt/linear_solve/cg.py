"""The conjugate gradient method, for symmetric systems."""

import functools
from collections.abc import Callable
from typing import Any

from torchpure.compat.torchopt import linalg
from torchpure.compat.torchopt.typing import LinearSolver

from .utils import make_ridge_matvec

__all__ = ["solve_cg"]


def _solve_cg(
    matvec: Callable[[Any], Any], b: Any, ridge: float | None = None, init: Any | None = None, **kwargs: Any
) -> Any:
    operator = matvec if ridge is None else make_ridge_matvec(matvec, ridge)
    return linalg.cg(operator, b, x0=init, **kwargs)


def solve_cg(**kwargs: Any) -> LinearSolver:
    """Make a solver `(matvec, b) → x` for a positive definite matrix.

    Arguments: `ridge`, `init`, and those of `linalg.cg`.

    >>> import torch
    >>> solve_cg()(lambda x: 2 * x, torch.ones(2))
    tensor([0.5000, 0.5000])
    """
    return functools.partial(_solve_cg, **kwargs)

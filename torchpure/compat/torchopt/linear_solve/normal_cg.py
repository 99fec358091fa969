"""The conjugate gradient method on the normal equations, for all invertible systems."""

import functools
from collections.abc import Callable
from typing import Any

from torchpure.compat.torchopt import linalg
from torchpure.compat.torchopt.typing import LinearSolver

from .utils import make_normal_matvec, make_ridge_matvec, make_rmatvec

__all__ = ["solve_normal_cg"]


def _solve_normal_cg(
    matvec: Callable[[Any], Any], b: Any, ridge: float | None = None, init: Any | None = None, **kwargs: Any
) -> Any:
    right = make_rmatvec(matvec, b if init is None else init)(b)
    normal = make_normal_matvec(matvec)
    return linalg.cg(normal if ridge is None else make_ridge_matvec(normal, ridge), right, x0=init, **kwargs)


def solve_normal_cg(**kwargs: Any) -> LinearSolver:
    """Make a solver `(matvec, b) → x` of Aᵀ A x = Aᵀ b. Arguments: `ridge`, `init`, and those of `linalg.cg`.

    >>> import torch
    >>> solve_normal_cg()(lambda x: 2 * x, torch.ones(2))
    tensor([0.5000, 0.5000])
    """
    return functools.partial(_solve_normal_cg, **kwargs)

"""Factorizations and inverses under vmap: a member whose matrix has none is NaN, alone.

torch raises an error for the whole batch if one matrix is singular, not positive definite, or not finite. Under vmap
the other members do not depend on that matrix, so here its results are NaN, as in JAX, and so are its derivatives.
Outside of vmap torch's own error is raised.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.context import current
from torchpure.transforms.engine import mapped_levels

from ._override import Override, Where

_types: Any = torch.return_types  # Any: torch's stubs lack some of them


def is_member(*tensors: Any) -> bool:
    """Return whether a matrix belongs to one member of a vmap."""
    return current.in_member or any(isinstance(tensor, Tensor) and mapped_levels(tensor) for tensor in tensors)


def nan_where(failed: Tensor, results: Any, matrix: Tensor) -> Any:
    """Make results NaN where a matrix failed, and their derivatives with respect to the matrix too.

    `failed` has the shape of the batch. Integer results stay as they are.
    """
    # an exponential of the entries of the matrix, so that all derivatives are NaN too; those of other members are 0
    entries = torch.where(failed[..., None, None], matrix, 0)
    poison = torch.exp((entries.sum((-2, -1)) + failed) * torch.where(failed, float("nan"), 0)) - 1

    def poisoned(result: Tensor) -> Tensor:
        if not result.numel() or not (result.is_floating_point() or result.is_complex()):
            return result
        added = poison.reshape([*poison.shape, *[1] * (result.ndim - poison.ndim)])
        return result + (added.real if added.is_complex() and not result.is_complex() else added).to(result.dtype)

    if isinstance(results, Tensor):
        return poisoned(results)
    return type(results)(tuple(map(poisoned, results)))


def by_finite_input(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Make the rule of an operation that fails only for matrices that are not finite."""

    @wraps(operation)
    def rule(*args: Any, **kwargs: Any) -> Any:
        name = None if args else next((name for name in ("A", "input") if name in kwargs), None)
        matrix: Any = args[0] if args else kwargs.get(name or "A")
        if not is_member(matrix, *args[1:]):
            return operation(*args, **kwargs)
        failed = ~matrix.isfinite().all(-1).all(-1)
        finite = torch.where(failed[..., None, None], 0, matrix)
        results = operation(finite, *args[1:], **{key: value for key, value in kwargs.items() if key != name})
        return nan_where(failed, results, matrix)

    return rule


def _cholesky(input: Tensor, *, upper: bool = False) -> Tensor:
    if not is_member(input):
        return torch.linalg.cholesky(input, upper=upper)
    factor, info = torch.linalg.cholesky_ex(input, upper=upper)
    return nan_where(info != 0, factor, input)


def _old_cholesky(input: Tensor, upper: bool = False) -> Tensor:
    return _cholesky(input, upper=upper)


def _inverse(A: Tensor) -> Tensor:  # noqa: N803 torch's name
    if not is_member(A):
        return torch.linalg.inv(A)
    inverse, info = torch.linalg.inv_ex(A)
    return nan_where(info != 0, inverse, A)


def _old_inverse(input: Tensor) -> Tensor:
    return _inverse(input)


def _tensor_inverse(A: Tensor, ind: int = 2) -> Tensor:  # noqa: N803 torch's name
    rows, columns = A.shape[:ind], A.shape[ind:]
    if not is_member(A) or rows.numel() != columns.numel():
        return torch.linalg.tensorinv(A, ind)
    return _inverse(A.reshape(rows.numel(), columns.numel())).reshape(*columns, *rows)


def _matrix_power(A: Tensor, n: int) -> Tensor:  # noqa: N803 torch's name
    return torch.linalg.matrix_power(_inverse(A) if n < 0 and is_member(A) else A, abs(n) if is_member(A) else n)


def _lu_factor(A: Tensor, *, pivot: bool = True) -> Any:  # noqa: N803 torch's name
    if not is_member(A):
        return torch.linalg.lu_factor(A, pivot=pivot)
    factors, pivots, info = torch.linalg.lu_factor_ex(A, pivot=pivot)
    return _types.linalg_lu_factor((nan_where(info != 0, factors, A), pivots))


def solve_or_nan(a: Tensor, b: Tensor) -> Tensor:
    """Compute `torch.linalg.solve(a, b)`; under vmap a member with a singular matrix is NaN."""
    if not is_member(a, b):
        return torch.linalg.solve(a, b)
    solution, info = torch.linalg.solve_ex(a, b)
    return nan_where(info != 0, solution, a)


_FINITE = (
    torch.linalg.svd, torch.linalg.svdvals, torch.svd, Tensor.svd, torch.linalg.eigh, torch.linalg.eigvalsh,
    torch.linalg.eig, torch.linalg.eigvals, torch.linalg.pinv, torch.pinverse, Tensor.pinverse, torch.linalg.lstsq,
    torch.linalg.matrix_rank, torch.linalg.cond,
)  # fmt: skip
OVERRIDES = (
    *(Override([operation], Where.ALWAYS, by_finite_input(operation)) for operation in _FINITE),
    Override([torch.linalg.cholesky], Where.ALWAYS, _cholesky),
    Override([torch.cholesky, Tensor.cholesky], Where.ALWAYS, _old_cholesky, until="2.14"),  # then it only raises
    Override([torch.linalg.inv], Where.ALWAYS, _inverse),
    Override([torch.inverse, Tensor.inverse], Where.ALWAYS, _old_inverse),
    Override([torch.linalg.tensorinv], Where.ALWAYS, _tensor_inverse),
    Override([torch.linalg.matrix_power, torch.matrix_power, Tensor.matrix_power], Where.ALWAYS, _matrix_power),
    Override([torch.linalg.lu_factor], Where.ALWAYS, _lu_factor),
)

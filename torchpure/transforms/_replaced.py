"""Operations of torch whose rules for transforms are wrong, written with others that are right.

Found over torch's own database of operators (tests/compositions): in torch 2.13 the forward derivative of
`scatter_reduce` with "prod" is zero, those of `triangular_solve` and `cholesky_inverse` are wrong under a gradient, and
the gradient of a mapped `select_scatter` is wrong. Where there is no other way, an error says so. A few that raise
are here too.
"""

import math
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from torchpure.errors import TransformError

from ._check import check


def _triangular_solve(
    b: Tensor, a: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    part = a.triu() if upper else a.tril()
    if transpose:
        part, upper = part.mT, not upper
    solution = torch.linalg.solve_triangular(part, b, upper=upper, unitriangular=unitriangular)
    return torch.return_types.triangular_solve((solution, a.clone()))


def _cholesky_inverse(x: Tensor, upper: bool = False) -> Tensor:
    factor = x.triu().mH if upper else x.tril()
    half = torch.linalg.solve_triangular(factor, torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), upper=False)
    return half.mH @ half


def _select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    places = torch.arange(input.shape[dim], device=input.device) == index % input.shape[dim]
    chosen = places.reshape([-1 if i == dim % input.ndim else 1 for i in range(input.ndim)])
    return torch.where(chosen, src.unsqueeze(dim), input)


def _column_stack(tensors: Any) -> Tensor:
    return torch.cat([leaf.reshape(-1, 1) if leaf.ndim <= 1 else leaf for leaf in tensors], 1)


def _scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    if reduce == "prod" and not _only_gradients():
        raise TransformError(
            "scatter_reduce with 'prod' has no forward derivative and no rule for vmap in torch: use grad or vjp "
            "alone, or sum logarithms"
        )
    return torch.scatter_reduce(input, dim, index, src, reduce, include_self=include_self)


def _only_gradients() -> bool:
    stack = torch._C._functorch.get_interpreter_stack() or []
    return all(level.key() == torch._C._functorch.TransformType.Grad for level in stack)


def _tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, **other: Any) -> Any:
    parts = indices_or_sections if indices_or_sections is not None else next(iter(other.values()))
    return torch.tensor_split(input, _numbers(parts), dim)


def _narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    return torch.narrow(input, dim, _numbers(start), length)


def _numbers(value: Any) -> Any:
    """Read numbers that a function has put into a tensor: torch does so itself, and has no rule for it."""
    if not isinstance(value, Tensor):
        return value
    found = value.tolist()
    return tuple(found) if isinstance(found, list) else found


def _gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Compute what torch does, with a look at the sign of the variance that works for mapped ones."""
    spread = torch.full_like(input, var) if isinstance(var, float) else var
    if isinstance(var, Tensor) and spread.shape != input.shape and spread.shape == input.shape[:-1]:
        spread = spread.unsqueeze(-1)
    check(spread >= 0, "gaussian_nll_loss: the variance has a negative entry")
    spread = spread + (spread.clamp(min=eps) - spread).detach()  # the derivative is that of the variance as given
    loss = 0.5 * (torch.log(spread) + (input - target) ** 2 / spread)
    loss = loss + 0.5 * math.log(2 * math.pi) if full else loss
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _linear_cross_entropy(*args: Any, options: Any = None, **kwargs: Any) -> Tensor:
    return F.linear_cross_entropy(*args, options=None, **kwargs)  # in chunks it knows no transform


REPLACED: dict[Any, Callable[..., Any]] = {
    torch.triangular_solve: _triangular_solve,
    Tensor.triangular_solve: _triangular_solve,
    torch.cholesky_inverse: _cholesky_inverse,
    Tensor.cholesky_inverse: _cholesky_inverse,
    torch.select_scatter: _select_scatter,
    Tensor.select_scatter: _select_scatter,
    torch.column_stack: _column_stack,
    torch.scatter_reduce: _scatter_reduce,
    Tensor.scatter_reduce: _scatter_reduce,
    torch.tensor_split: _tensor_split,
    Tensor.tensor_split: _tensor_split,
    torch.narrow: _narrow,
    Tensor.narrow: _narrow,
    F.gaussian_nll_loss: _gaussian_nll_loss,
    F.linear_cross_entropy: _linear_cross_entropy,
}
REPLACED_NAMES = frozenset(operation.__name__ for operation in REPLACED)
_found = REPLACED.get


class _Replacing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = _found(func, func)
        return func(*args, **kwargs) if kwargs else func(*args)


class _Here(threading.local):
    active = False


_here = _Here()


class replacing:  # noqa: N801 a context manager
    """Replace operations in this thread, if no transform around does so already."""

    __slots__ = ("_mode",)

    def __enter__(self) -> None:
        self._mode = None if _here.active else _Replacing()
        if self._mode is not None:
            _here.active = True
            self._mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._mode is not None:
            _here.active = False
            self._mode.__exit__(*error)

"""Formulas for inductor that agree with torch's kernels at infinities, huge numbers and whole quotients.

inductor's own acosh overflows in x², its remainders round the quotient, its addcdiv divides first, and its variance of
float32 squares in float32.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten
VERSION = "1"  # part of the keys of cached programs: raise it when a formula changes
_FLOATS = frozenset({torch.float32, torch.float64})


def _acosh(x: Tensor) -> Any:
    if x.dtype not in _FLOATS:
        return NotImplemented
    t = x - 1
    near = torch.log1p(t + torch.sqrt(2 * t + t * t))
    near = torch.where(x < 1, math.nan, near)  # far below, t + sqrt(t²) rounds to 0
    return torch.where(x > 1e9, torch.log(x) + math.log(2), near)


def _addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Any:
    if input.dtype not in _FLOATS:
        return NotImplemented
    return input + value * tensor1 / tensor2


def _of_floats(x: Any, y: Any) -> bool:
    return torch.result_type(x, y) in _FLOATS


def _remainder(x: Tensor, y: Any) -> Any:
    if not _of_floats(x, y):
        return NotImplemented
    rest = torch.fmod(x, y)
    return torch.where(_rounds_down(rest, y), rest + y, rest)


def _rounds_down(rest: Tensor, y: Any) -> Tensor:
    return (rest != 0) & ((rest < 0) != (y < 0))


def _divide_down(x: Tensor, y: Any) -> Tensor:
    rest, ratio = torch.fmod(x, y), x / y
    q = (x - rest) / y - _rounds_down(rest, y).to(ratio.dtype)
    down = torch.floor(q)
    whole = torch.where(q - down > 0.5, down + 1, down)
    zero = torch.as_tensor(y == 0, device=x.device)
    return torch.where(zero, ratio, torch.where(q == 0, torch.copysign(torch.zeros_like(ratio), ratio), whole))


def _variance(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    if x.dtype != torch.float32:
        return NotImplemented
    return _aten.var.correction(x.double(), dim, correction=correction, keepdim=keepdim).float()


def _deviation(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    return _aten.var.correction(x.double(), dim, correction=correction, keepdim=keepdim).sqrt().float()


def with_exact_formulas(table: dict[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Return a table of decompositions in which these formulas replace inductor's on the CPU."""
    old_floor_divide, old_std = table[_aten.floor_divide.default], table[_aten.std.correction]

    def floor_divide(x: Any, y: Any) -> Any:
        return _divide_down(x, y) if _of_floats(x, y) else old_floor_divide(x, y)

    def divide(x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
        return _divide_down(x, y) if rounding_mode == "floor" and _of_floats(x, y) else NotImplemented

    return {
        **table,
        _aten.acosh.default: _acosh,
        _aten.addcdiv.default: _addcdiv,
        _aten.remainder.Tensor: _remainder,
        _aten.remainder.Scalar: _remainder,
        _aten.floor_divide.default: floor_divide,
        _aten.div.Tensor_mode: divide,
        _aten.div.Scalar_mode: divide,
        _aten.var.correction: _variance,
        _aten.std.correction: lambda x, *args, **kwargs: (
            _deviation(x, *args, **kwargs) if x.dtype == torch.float32 else old_std(x, *args, **kwargs)
        ),
    }

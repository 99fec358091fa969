"""Functions of two arguments at zeros: angles, lengths, x log y, signs."""

import math
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.engine import all_between, in_first_gradient_of_members, may_look

from ._elementwise import Elementwise, with_value
from ._safe_product import safe_product


def _slope(a: Tensor, b: Tensor) -> Tensor:
    """Return a / (a² + b²), and 0 at a = b = 0."""
    size = torch.maximum(a.detach().abs(), b.detach().abs())
    size = torch.where(size == 0, 1.0, size)
    a, b = a / size, b / size
    square = a * a + b * b
    return torch.where(square == 0, 0.0, a / torch.where(square == 0, 1.0, square) / size)


_ATAN2 = Elementwise("atan2", torch.atan2, (lambda y, x: _slope(x, y), lambda y, x: -_slope(y, x)))


# dtype -> the smallest size whose fourth power is no denormal number
_SIZES = {dtype: (torch.finfo(dtype).tiny / torch.finfo(dtype).eps) ** 0.25 for dtype in (torch.float32, torch.float64)}


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.atan2`; at the origin its derivatives are 0."""
    dtype = torch.result_type(input, other)
    if dtype in _SIZES and may_look(2, input, other):
        size = torch.hypot(input.detach(), other.detach())
        if all_between(size, _SIZES[dtype], 1 / _SIZES[dtype]):
            return torch.atan2(input, other)  # torch divides by squares, and by squares of those
    return _ATAN2(input.to(dtype), other.to(dtype)) if dtype.is_floating_point else torch.atan2(input, other)


def _share(a: Tensor, b: Tensor) -> Tensor:
    """Return a / √(a² + b²), and 0 at a = b = 0."""
    size = _HYPOT(a, b)
    return torch.where(size == 0, 0.0, a / torch.where(size == 0, 1.0, size))


_HYPOT = Elementwise("hypot", torch.hypot, (_share, lambda a, b: _share(b, a)))


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.hypot`; at the origin its derivatives are 0, as those of a norm."""
    if may_look(1, input, other):  # the forward derivative of its gradient is wrong in torch
        value = torch.hypot(input, other)
        low, high = torch.finfo(value.dtype).tiny, math.inf  # torch divides by the value
        if not in_first_gradient_of_members(input, other):  # forwards it multiplies first
            low, high = _SIZES.get(value.dtype, math.inf), 1 / _SIZES.get(value.dtype, math.inf)
        if all_between(value, low, high):
            return value
    return of_two(_HYPOT, input, other)


def _logarithm(value: Any, log: Any, inside: Any) -> Elementwise:
    """Return x log y, or x log(1 + y), which is 0 with derivatives 0 at x = 0 where the logarithm is not finite."""

    def in_x(x: Tensor, y: Tensor) -> Tensor:
        vanishes = (x == 0) & (inside(y) <= 0)
        return torch.where(vanishes, 0.0, log(torch.where(vanishes, 1.0, y)))

    def in_y(x: Tensor, y: Tensor) -> Tensor:
        return safe_product(x, torch.reciprocal(inside(y)))

    return Elementwise(value.__name__.removeprefix("special_"), value, (in_x, in_y))


_XLOGY = _logarithm(torch.xlogy, torch.log, lambda y: y)
_XLOG1PY = _logarithm(torch.special.xlog1py, torch.log1p, lambda y: 1 + y)


def _is_positive(x: Any, y: Any, border: float) -> bool:
    """Return whether the reciprocals in two derivatives of a logarithm are numbers: it has no border there."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and y.dtype in _SIZES and x.dtype == y.dtype):
        return False
    limits = torch.finfo(y.dtype)
    low = limits.tiny**0.25 if border == 0 else border + limits.eps
    return may_look(2, x, y) and all_between(y, low, limits.max)


def xlogy(input: Any, other: Any) -> Tensor:
    """Compute `torch.xlogy`."""
    if _is_positive(input, other, 0.0):
        return torch.xlogy(input, other)
    return of_two(_XLOGY, input, other)


def xlog1py(input: Any, other: Any) -> Tensor:
    """Compute `torch.special.xlog1py`."""
    if _is_positive(input, other, -1.0):
        return torch.special.xlog1py(input, other)
    return of_two(_XLOG1PY, input, other)


def of_two(function: Elementwise, a: Any, b: Any) -> Tensor:
    """Call an elementwise function of two tensors, or of a tensor and a number, in their common dtype."""
    dtype = torch.result_type(a, b)
    if not dtype.is_floating_point:
        return function.value(a, b)
    like = a if isinstance(a, Tensor) else b
    return function(*(torch.as_tensor(leaf, dtype=dtype, device=like.device) for leaf in (a, b)))


def copysign(input: Tensor, other: Any) -> Tensor:
    """Compute `torch.copysign`: |x| with a constant sign; at 0 its derivative is 0."""
    if not input.is_floating_point():
        return torch.copysign(input, other)
    value = torch.copysign(input.detach(), other)
    followed = input * (torch.sgn(input) * torch.copysign(torch.ones_like(input), other)).detach()
    return with_value(followed, value)

"""Functions of two arguments at zeros: angles, lengths, x log y, signs."""

from typing import Any

import torch
from torch import Tensor

from torchpure._torch import FakeTensor
from torchpure.transforms.engine import in_any_level

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


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.atan2`; at the origin its derivatives are 0."""
    dtype = torch.result_type(input, other)
    return _ATAN2(input.to(dtype), other.to(dtype)) if dtype.is_floating_point else torch.atan2(input, other)


def _share(a: Tensor, b: Tensor) -> Tensor:
    """Return a / √(a² + b²), and 0 at a = b = 0."""
    size = _HYPOT(a, b)
    return torch.where(size == 0, 0.0, a / torch.where(size == 0, 1.0, size))


_HYPOT = Elementwise("hypot", torch.hypot, (_share, lambda a, b: _share(b, a)))


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.hypot`; at the origin its derivatives are 0, as those of a norm."""
    if not in_any_level() and not isinstance(input, FakeTensor):
        value = torch.hypot(input, other)
        if bool((value >= torch.finfo(value.dtype).tiny).all()):  # torch divides by the value
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


def xlogy(input: Any, other: Any) -> Tensor:
    """Compute `torch.xlogy`."""
    return of_two(_XLOGY, input, other)


def xlog1py(input: Any, other: Any) -> Tensor:
    """Compute `torch.special.xlog1py`."""
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

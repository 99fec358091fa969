"""First and second derivatives of functions of each entry."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.transforms import jvp

Both = tuple[Tensor, Tensor | None]
Formula = Callable[[Tensor, Tensor], Both]  # (at, value) -> f′, f″; None: zero


def _tanh(at: Tensor, value: Tensor) -> Both:
    slope = 1 - value * value
    return slope, -2 * value * slope


def _sigmoid(at: Tensor, value: Tensor) -> Both:
    slope = value * (1 - value)
    return slope, slope * (1 - 2 * value)


def _exp(at: Tensor, value: Tensor) -> Both:
    return value, value


def _sin(at: Tensor, value: Tensor) -> Both:
    return torch.cos(at), -value


def _cos(at: Tensor, value: Tensor) -> Both:
    return -torch.sin(at), -value


def _square(at: Tensor, value: Tensor) -> Both:
    return 2 * at, torch.full_like(at, 2.0)


def _log(at: Tensor, value: Tensor) -> Both:
    slope = torch.reciprocal(at)
    return slope, -slope * slope


def _reciprocal(at: Tensor, value: Tensor) -> Both:
    slope = -value * value
    return slope, -2 * value * slope


def _silu(at: Tensor, value: Tensor) -> Both:
    gate = torch.sigmoid(at)
    slope = gate * (1 - gate)
    return gate + at * slope, slope * (2 + at * (1 - 2 * gate))


def _relu(at: Tensor, value: Tensor) -> Both:
    return (at > 0).to(at.dtype), None


_BY_NAME: dict[str, Formula] = {
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "exp": _exp,
    "sin": _sin,
    "cos": _cos,
    "square": _square,
    "log": _log,
    "reciprocal": _reciprocal,
    "silu": _silu,
    "relu": _relu,
}
_SPACES: tuple[Any, ...] = (torch, torch.Tensor, F, torch.special, torch.ops.aten)
FORMULAS = {
    found: formula
    for name, formula in _BY_NAME.items()
    for space in _SPACES
    if callable(found := getattr(space, name, None))
}


def formula_of(func: Any) -> Formula | None:
    """Return the formula of a function of each entry."""
    return FORMULAS.get(getattr(func, "overloadpacket", func))


def first_and_second(func: Any, call: Callable[[Tensor], Tensor], at: Tensor, value: Tensor) -> Both:
    """Return f′ and f″ at each entry of `at`, by a formula or by forward derivatives along ones."""
    formula = formula_of(func)
    if formula is not None:
        return formula(at, value)
    ones = torch.ones_like(at)
    return jvp(lambda one: jvp(call, (one,), (ones,))[1], (at,), (ones,))

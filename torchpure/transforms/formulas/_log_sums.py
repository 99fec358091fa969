"""Logarithms of sums of exponentials, over any range: the weights in their derivatives are sigmoids."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.transforms.calls import ForwardRule, ForwardRuleCall

from ._elementwise import Elementwise


def _weight(rate: float, a: Tensor, b: Tensor) -> Tensor:
    """Return the share of the first of two terms, exp(rate · a) of exp(rate · a) + exp(rate · b)."""
    equal = (a == b) & a.isinf()  # whose difference is NaN
    return torch.sigmoid(torch.where(equal, 0.0, rate * (a - b)))


def _weight_of_second(rate: float, a: Tensor, b: Tensor) -> Tensor:
    return _weight(rate, b, a)


def _sum_of_two(value: Any, rate: float) -> Elementwise:
    return Elementwise(value.__name__, value, (partial(_weight, rate), partial(_weight_of_second, rate)))


_LOGADDEXP, _LOGADDEXP2 = _sum_of_two(torch.logaddexp, 1.0), _sum_of_two(torch.logaddexp2, math.log(2))


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.logaddexp`."""
    return _add(_LOGADDEXP, input, other)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.logaddexp2`."""
    return _add(_LOGADDEXP2, input, other)


def _add(function: Elementwise, a: Tensor, b: Tensor) -> Tensor:
    if a.is_complex() or b.is_complex() or not (a.is_floating_point() and b.is_floating_point()):
        return function.value(a, b)
    dtype = torch.result_type(a, b)
    return function(a.to(dtype), b.to(dtype))


# each factor σ(±x) keeps its digits far out
_SIGMOID_OF_MINUS = Elementwise(
    "logsigmoid", lambda x: torch.sigmoid(-x), (lambda x: -torch.sigmoid(x) * torch.sigmoid(-x),)
)
_LOG_SIGMOID = Elementwise("logsigmoid", F.logsigmoid, (_SIGMOID_OF_MINUS,))


def logsigmoid(input: Tensor) -> Tensor:
    """Compute `F.logsigmoid`; the forward derivative of torch resizes a buffer under vmap, with a warning."""
    return _LOG_SIGMOID(input) if input.is_floating_point() else F.logsigmoid(input)


class _RunningLogSum(ForwardRuleCall):
    """yₖ = log Σ_{i≤k} exp xᵢ over the last dimension, in log n steps; dyₖ is a weighted mean of the dxᵢ."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return (torch.logcumsumexp(tensors[0], -1),)

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        y, moved, shift = tensors[0], tangents[0], 1
        while shift < y.shape[-1]:
            left, right = y[..., :-shift], y[..., shift:]
            pushed = _weight(1.0, left, right) * moved[..., :-shift] + _weight(1.0, right, left) * moved[..., shift:]
            moved = torch.cat([moved[..., :shift], pushed], -1)
            y = torch.cat([y[..., :shift], logaddexp(left, right)], -1)
            shift *= 2
        return [moved]


_RUNNING_LOG_SUM = _RunningLogSum()


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """Compute `torch.logcumsumexp`."""
    if not input.is_floating_point() or not input.ndim or not input.numel():
        return torch.logcumsumexp(input, dim)
    return ForwardRule.apply(_RUNNING_LOG_SUM, input.movedim(dim, -1))[0].movedim(-1, dim)

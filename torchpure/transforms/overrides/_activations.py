"""Activations: torch lacks the second derivative of hardsigmoid, and the forward derivative of prelu's gradient."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ._override import Override, Where


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    out = F.relu6(input + 3) / 6
    return input.copy_(out) if inplace else out


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.numel() not in {1, channels} or weight.dtype != input.dtype:
        return torch.prelu(input, weight)  # raises
    return torch.where(input > 0, input, input * weight.reshape([-1 if d == 1 else 1 for d in range(input.ndim)]))


OVERRIDES = (
    Override([F.hardsigmoid], Where.IN_TRANSFORM, _hardsigmoid),
    Override([torch.prelu, Tensor.prelu], Where.FORWARD_MODE, _prelu),
)

"""Functions of `torch.nn.functional` with numbers that may be tensors: slopes, bounds, `eps`; embeddings.

The padding row of an embedding is a constant forwards too, as it is in torch's backward pass.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _out(result: Tensor, input: Tensor, inplace: bool) -> Tensor:
    result = result.to(input.dtype)
    return input.copy_(result) if inplace else result


def leaky_relu(input: Tensor, negative_slope: Any = 0.01, inplace: bool = False) -> Tensor:
    """Compute `F.leaky_relu`."""
    return _out(torch.where(input > 0, input, input * negative_slope), input, inplace)


def elu(input: Tensor, alpha: Any = 1.0, inplace: bool = False) -> Tensor:
    """Compute `F.elu`."""
    return _out(torch.where(input > 0, input, alpha * torch.expm1(input.clamp(max=0))), input, inplace)


def celu(input: Tensor, alpha: Any = 1.0, inplace: bool = False) -> Tensor:
    """Compute `F.celu`."""
    return _out(torch.where(input > 0, input, alpha * torch.expm1(input.clamp(max=0) / alpha)), input, inplace)


def hardtanh(input: Tensor, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Tensor:
    """Compute `F.hardtanh`."""
    return _out(torch.where(input <= min_val, min_val, torch.where(input >= max_val, max_val, input)), input, inplace)


def threshold(input: Tensor, threshold: Any, value: Any, inplace: bool = False) -> Tensor:
    """Compute `F.threshold`."""
    return _out(torch.where(input > threshold, input, value), input, inplace)


def hardshrink(input: Tensor, lambd: Any = 0.5) -> Tensor:
    """Compute `F.hardshrink`."""
    return torch.where(input.abs() <= lambd, 0.0, input)


def softshrink(input: Tensor, lambd: Any = 0.5) -> Tensor:
    """Compute `F.softshrink`."""
    return torch.where(input.abs() <= lambd, 0.0, input - torch.sign(input) * lambd).to(input.dtype)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Compute `torch.clamp` with bounds of which one may be a number and the other a tensor."""
    low, high = (
        bound if bound is None or isinstance(bound, Tensor) else torch.as_tensor(bound, dtype=input.dtype)
        for bound in (min, max)
    )
    return torch.clamp(input, low, high).to(input.dtype)


def softplus(input: Tensor, beta: Any = 1, threshold: Any = 20) -> Tensor:
    """Compute `F.softplus`: log(1 + exp(β x)) / β, and x where β x is above the threshold."""
    scaled = input * beta
    linear = scaled > threshold
    return torch.where(linear, input, F.softplus(torch.where(linear, 0.0, scaled)) / beta).to(input.dtype)


def rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Tensor:
    """Compute `F.rms_norm`."""
    dims = tuple(range(-len(normalized_shape), 0))
    out = input * torch.rsqrt((input**2).mean(dims, keepdim=True) + eps)
    return (out if weight is None else out * weight).to(input.dtype)


def layer_norm(input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5) -> Tensor:
    """Compute `F.layer_norm`."""
    return _affine(_standardize(input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def group_norm(input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: Any = 1e-5) -> Tensor:
    """Compute `F.group_norm`."""
    groups = input.reshape(input.shape[0], num_groups, -1)
    sizes = (1, -1, *[1] * (input.ndim - 2))
    scales = (leaf if leaf is None else leaf.reshape(sizes) for leaf in (weight, bias))
    return _affine(_standardize(groups, (-1,), eps).reshape(input.shape), *scales)


def _standardize(x: Tensor, dims: tuple[int, ...], eps: Any) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return (centred * torch.rsqrt((centred**2).mean(dims, keepdim=True) + eps)).to(x.dtype)


def _affine(x: Tensor, weight: Any, bias: Any) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def pad(input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
    """Compute `F.pad` with a constant value."""
    inside = F.pad(torch.ones_like(input, dtype=torch.bool), pad, mode, False)
    return torch.where(inside, F.pad(input, pad, mode), value).to(input.dtype)


def logit(input: Tensor, eps: Any = None) -> Tensor:
    """Compute `torch.logit`: the input is clamped to [eps, 1 − eps]."""
    inside = torch.where(input < eps, eps, torch.where(input > 1 - eps, 1 - eps, input))
    return torch.logit(inside).to(input.dtype)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Compute `F.embedding`; its gradient is dense."""
    if padding_idx is not None:
        padding = torch.arange(weight.shape[0], device=weight.device) == padding_idx % weight.shape[0]
        weight = torch.where(padding[:, None], weight.detach(), weight)
    return F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)

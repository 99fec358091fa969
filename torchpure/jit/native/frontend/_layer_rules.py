"""Decompositions of layers for float32 and float64. torch's rules serve other dtypes; their first call imports sympy.

Each rule does what torch's does, in the same order.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def layer_rules(torchs: dict[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Return rules for layers. `torchs` has torch's rules, for what these do not serve."""
    known = {op: inspect.unwrap(torchs[op]) for op in _WITHOUT_CASTS} | _RULES
    return {op: _if_float(rule, torchs[op]) for op, rule in known.items()}


def _if_float(rule: Callable[..., Any], torchs: Callable[..., Any]) -> Callable[..., Any]:
    def decompose(x: Tensor, *args: Any, **options: Any) -> Any:
        dtypes = {arg.dtype for arg in (x, *args) if isinstance(arg, Tensor) and arg.is_floating_point()}
        serves = dtypes in _SERVED and x.numel() > 0
        out = rule(x, *args, **options) if serves else NotImplemented
        return torchs(x, *args, **options) if out is NotImplemented else out

    return decompose


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    x = x.contiguous()
    powers = torch.exp(x - torch.amax(x, dim, keepdim=True))
    return powers / torch.sum(powers, dim, keepdim=True)


def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    x = x.contiguous()
    shifted = x - torch.amax(x, dim, keepdim=True)
    return shifted - torch.log(torch.sum(torch.exp(shifted), dim, keepdim=True))


def _normalize(x: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised tensor, the mean and the inverse deviation."""
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    scale = torch.rsqrt(variance + eps)
    return (x - mean) * scale, mean, scale


def _layer_norm(x: Tensor, sizes: list[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    out, mean, scale = _normalize(x, list(range(x.ndim - len(sizes), x.ndim)), eps)
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias, mean, scale


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, batch: int, channels: int, area: int, groups: int, eps: float
) -> Any:
    if (weight is None) != (bias is None):
        return NotImplemented
    grouped = x.reshape(batch, groups, channels // groups, area)
    if weight is None or bias is None:
        out, mean, scale = _normalize(grouped, [2, 3], eps)
        return out.reshape(x.shape), mean.reshape(batch, groups), scale.reshape(batch, groups)
    variance, mean = torch.var_mean(grouped, [2, 3], correction=0, keepdim=True)
    scale, row = torch.rsqrt(variance + eps), (1, groups, channels // groups, 1)
    slope = scale * weight.reshape(row)  # the affine map follows the normalisation: one map does both
    shift, column = -mean * slope + bias.reshape(row), (batch, channels, *[1] * (x.ndim - 2))
    return x * slope.reshape(column) + shift.reshape(column), mean.reshape(batch, groups), scale.reshape(batch, groups)


def _likelihood_loss(x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int) -> Any:
    """The mean, the sum (2) or each (0) of the negative entries of the targets, and the number of them."""
    if x.ndim != 2 or target.shape != x.shape[:1] or weight is not None:
        return NotImplemented
    counts = target != ignored
    chosen = torch.where(counts, target, 0).unsqueeze(1)
    losses = torch.where(counts, -torch.gather(x, 1, chosen).squeeze(1), 0)
    if reduction == 0:
        return losses, x.new_full((), 0.0)
    total = counts.sum().to(x.dtype)
    return (losses.sum() if reduction == 2 else losses.sum() / total), total


_SERVED = ({torch.float32}, {torch.float64})
_WITHOUT_CASTS = (  # torch's rules, without what casts half precision to single precision and back
    _aten._softmax_backward_data.default, _aten._log_softmax_backward_data.default, _aten.tanh_backward.default,
    _aten.sigmoid_backward.default, _aten.threshold_backward.default, _aten.gelu_backward.default,
    _aten.silu_backward.default, _aten.elu_backward.default, _aten.leaky_relu_backward.default,
    _aten.softplus_backward.default, _aten.hardtanh_backward.default, _aten.mse_loss.default,
    _aten.mse_loss_backward.default, _aten.gelu.default,
)  # fmt: skip
_RULES = {
    _aten.nll_loss_forward.default: _likelihood_loss,
    _aten._softmax.default: _softmax,
    _aten._log_softmax.default: _log_softmax,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.native_group_norm.default: _group_norm,
}

"""Losses and attention, for forward derivatives: torch has none of their gradients, or wants to write to its zeros.

Each computes what torch's does, of operations that have every derivative.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn._reduction import get_enum

from ._levels import functorch
from ._replacing import BOTH, FORWARD, kinds


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def _asks(*options: Any) -> bool:
    """Tell whether there are weights, or options by torch's old names."""
    return any(option is not None for option in options)


def _mse_loss(input: Tensor, target: Tensor, *old: Any, reduction: str = "mean", **other: Any) -> Tensor:
    if _asks(*old, *other.values()) or target.shape != input.shape or reduction not in _REDUCTIONS:
        return F.mse_loss(input, target, *old, reduction=reduction, **other)  # which says what is wrong
    if functorch.TransformType.Grad not in kinds():
        return _plain_mse_loss(input, target, get_enum(reduction))  # torch's own is right, and one operation
    return _reduced((input - target) ** 2, reduction)


def _huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, **other: Any) -> Tensor:
    if _asks(*other.values()) or target.shape != input.shape or reduction not in _REDUCTIONS or delta <= 0:
        return F.huber_loss(input, target, reduction, delta, **other)
    error = input - target
    size = error.abs()
    return _reduced(torch.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta)), reduction)


def _soft_margin_loss(input: Tensor, target: Tensor, *old: Any, reduction: str = "mean", **other: Any) -> Tensor:
    if _asks(*old, *other.values()) or reduction not in _REDUCTIONS:
        return F.soft_margin_loss(input, target, *old, reduction=reduction, **other)
    return _reduced(F.softplus(-target * input), reduction)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    out = F.relu6(input + 3) / 6
    return input.copy_(out) if inplace else out


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute softmax(q kᵀ scale + mask) v (Vaswani et al. 2017, arXiv:1706.03762, equation 1)."""
    if is_causal and attn_mask is not None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal)
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    if attn_mask is None:
        weights = torch.softmax(scores, -1)
    else:  # a row that sees nothing is zero, as torch has it
        empty = (scores == -math.inf).all(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def _multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Take the way that also tells the weights: of the other one torch has no forward derivative."""
    if len(args) > _BEFORE_WEIGHTS:
        return F.multi_head_attention_forward(*args, **kwargs)
    asked = kwargs.get("need_weights", True)
    kwargs["need_weights"] = True
    out, weights = F.multi_head_attention_forward(*args, **kwargs)
    return out, weights if asked else None


_BEFORE_WEIGHTS = 15  # arguments of that function
_plain_mse_loss: Any = torch._C._nn.mse_loss
_REDUCTIONS = frozenset({"mean", "sum", "none"})
FORWARD.update(
    {
        F.mse_loss: _mse_loss,
        F.soft_margin_loss: _soft_margin_loss,
        F.scaled_dot_product_attention: _attention,
        F.multi_head_attention_forward: _multi_head_attention,
    }
)
BOTH.update({F.huber_loss: _huber_loss, F.hardsigmoid: _hardsigmoid})

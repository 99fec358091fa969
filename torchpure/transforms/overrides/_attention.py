"""Attention in plain operations, which have all derivatives (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

torch's fused kernels have no forward derivative and no second derivative.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure._torch import nested_tensor_from_mask_left_aligned

from ._override import Override, Where

_HALF = frozenset({torch.float16, torch.bfloat16})


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute `F.scaled_dot_product_attention`: softmax(Q Kᵀ · scale + bias) V."""
    if is_causal and attn_mask is not None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, True)  # raises
    if query.dtype in _HALF:  # in single precision inside, as torch's own kernels
        mask = attn_mask.float() if attn_mask is not None and attn_mask.dtype in _HALF else attn_mask
        wide = attention(query.float(), key.float(), value.float(), mask, dropout_p, is_causal, scale, enable_gqa)
        return wide.to(query.dtype)
    weights, value = attention_weights(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def attention_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> tuple[Tensor, Tensor]:
    """Return the attention weights, (…, queries, keys), and the values, repeated for heads that share them."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        return scores.softmax(-1), value
    scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    masked = (scores == -math.inf).all(-1, keepdim=True)  # a row that attends to nothing gives zero
    return scores.masked_fill(masked, 0.0).softmax(-1).masked_fill(masked, 0.0), value


def _multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Ask for the weights too: that path of torch runs no fused kernel."""
    if len(args) > _BEFORE_WEIGHTS:
        return F.multi_head_attention_forward(*args, **kwargs)
    asked = kwargs.get("need_weights", True)
    kwargs["need_weights"] = True
    out, weights = F.multi_head_attention_forward(*args, **kwargs)
    return out, weights if asked else None


_BEFORE_WEIGHTS = 15  # the positional arguments before `need_weights`


def _is_left_aligned(*_: Any) -> bool:
    """Say no, so that an encoder does not make nested tensors, which transforms cannot follow."""
    return False


OVERRIDES = (
    Override([nested_tensor_from_mask_left_aligned], Where.ALWAYS, _is_left_aligned),
    Override([F.scaled_dot_product_attention], Where.IN_TRANSFORM, attention),
    Override([F.multi_head_attention_forward], Where.IN_TRANSFORM, _multi_head_attention),
)

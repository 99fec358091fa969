"""Operations that are made of others: softmax, layer norm, attention. Their parts have rules, so blocks stay known.

Attention divides by the sum of the weights at the end (as in Rabe and Staats 2021, arXiv:2112.05682): the derivatives
of the weights themselves are then never stored for all coordinates.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _softmax(input: Tensor, dim: int | None = None, *rest: Any, **options: Any) -> Tensor | None:
    if dim is None or rest or any(value is not None for name, value in options.items() if name != "_stacklevel"):
        return None
    weights = _weights(input, dim)
    return weights * torch.reciprocal(weights.sum(dim, keepdim=True))


def _log_softmax(input: Tensor, dim: int | None = None, *rest: Any, **options: Any) -> Tensor | None:
    if dim is None or rest or any(value is not None for name, value in options.items() if name != "_stacklevel"):
        return None
    centred = input - input.detach().amax(dim, keepdim=True)
    return centred - torch.log(torch.exp(centred).sum(dim, keepdim=True))


def _weights(scores: Tensor, dim: int) -> Tensor:
    return torch.exp(scores - scores.detach().amax(dim, keepdim=True))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Tensor | None:
    dims = list(range(-len(normalized_shape), 0))
    if rest or not dims or list(input.shape[-len(dims) :]) != list(normalized_shape):
        return None
    centred = input - input.mean(dims, keepdim=True)
    out = centred * torch.rsqrt(torch.square(centred).mean(dims, keepdim=True) + eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    if attn_mask is not None or dropout_p or is_causal or enable_gqa or min(query.ndim, key.ndim, value.ndim) < 2:
        return None
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    weights = _weights(scores, -1)
    return (weights @ value) * torch.reciprocal(weights.sum(-1, keepdim=True))


_UNKNOWN = ("bias_k", "bias_v", "key_padding_mask", "attn_mask", "static_k", "static_v")
_HEADS = signature(F.multi_head_attention_forward)


def _multi_head(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None] | None:
    """Project, attend in each head, project. Without masks, drawn zeros and biases of keys and values."""
    bound = _HEADS.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    drops = given["dropout_p"] and given["training"]
    if drops or any(given[name] is not None for name in _UNKNOWN) or given["add_zero_attn"] or given["is_causal"]:
        return None
    inputs = [given[name] for name in ("query", "key", "value")]
    if given["use_separate_proj_weight"] or given["need_weights"] or inputs[0].ndim not in {2, 3}:
        return None
    return _project(given, inputs), None


def _project(given: Mapping[str, Any], inputs: list[Tensor]) -> Tensor:
    count, bias = given["num_heads"], given["in_proj_bias"]
    weights = given["in_proj_weight"].chunk(3)
    biases = [None] * 3 if bias is None else bias.chunk(3)
    heads = []
    for one, weight, shift in zip(inputs, weights, biases, strict=True):
        made = F.linear(one, weight, shift).unflatten(-1, (count, -1))  # (length, [batch,] head, size)
        heads.append(made.movedim(0, -2))  # ([batch,] head, length, size)
    mixed = _attention(heads[0], heads[1], heads[2])
    assert mixed is not None, "no mask is given"
    return F.linear(mixed.movedim(-2, 0).flatten(-2), given["out_proj_weight"], given["out_proj_bias"])


_TABLE: dict[Any, Callable[..., Any]] = {
    torch.softmax: _softmax,
    torch.Tensor.softmax: _softmax,
    F.softmax: _softmax,
    torch.log_softmax: _log_softmax,
    torch.Tensor.log_softmax: _log_softmax,
    F.log_softmax: _log_softmax,
    F.layer_norm: _layer_norm,
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _multi_head,
}


def in_parts(func: Any) -> Callable[..., Any] | None:
    """Return a function that does the same by operations with rules; it returns None for arguments it does not know.

    >>> in_parts(torch.softmax) is not None, in_parts(torch.sin)
    (True, None)
    """
    return _TABLE.get(func)

"""Torch layers with random numbers from keys: all forms of dropout, attention, recurrent layers, RReLU.

Each function replaces the torch function of the same name and takes the same arguments after `next_key`, a function
that returns a new key at each call. The result is as torch documents it; only the source of the numbers differs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchpure import random
from torchpure._types import Key
from torchpure.transforms.overrides import attention_weights, in_transform_rule

NextKey = Callable[[], Key]


def dropout(next_key: NextKey, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero entries, as `F.dropout`."""
    _check_probability("dropout", p)
    return _apply_dropout(next_key, input, p, input.shape, inplace) if training and p else input


def feature_dropout(
    next_key: NextKey, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of (rows, channels, …), as `torch.feature_dropout`."""
    _check_probability("feature_dropout", p)
    return _apply_dropout(next_key, input, p, _channel_mask_shape(input), inplace) if training and p else input


def channel_dropout(spatial: int) -> Callable[..., Tensor]:
    """Return the keyed version of `F.dropout1d`, `F.dropout2d` or `F.dropout3d`."""

    def keyed(next_key: NextKey, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        _check_probability(f"dropout{spatial}d", p)
        if not training or not p:
            return input
        # torch reads a 3-d input of dropout2d as (rows, channels, length)
        unbatched = input.ndim == spatial + 1 and spatial != 2
        shape = (*input.shape[:1], *[1] * spatial) if unbatched else _channel_mask_shape(input)
        return _apply_dropout(next_key, input, p, shape, inplace)

    return keyed


def alpha_dropout(
    next_key: NextKey, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Drop to the negative saturation of SELU, as `F.alpha_dropout`."""
    _check_probability("alpha_dropout", p)
    return _apply_alpha_dropout(next_key, input, p, input.shape, inplace) if training and p else input


def feature_alpha_dropout(
    next_key: NextKey, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Drop whole channels to the negative saturation of SELU, as `F.feature_alpha_dropout`."""
    _check_probability("feature_alpha_dropout", p)
    return _apply_alpha_dropout(next_key, input, p, _channel_mask_shape(input), inplace) if training and p else input


def native_dropout(next_key: NextKey, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Zero entries and return the mask too, as `torch.native_dropout`."""
    if train is False or not p:
        return input.clone(), torch.ones_like(input, dtype=torch.bool)
    keep = _keep_mask(next_key, input, p, input.shape)
    return input * _scaled_mask(keep, input, p), keep


def _check_probability(caller: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{caller}: the probability must be in [0, 1], got {p}")


def _channel_mask_shape(input: Tensor) -> tuple[int, ...]:
    if input.ndim < 2:
        raise RuntimeError(f"feature dropout: wanted (rows, channels, …), got shape {tuple(input.shape)}")
    return (*input.shape[:2], *[1] * (input.ndim - 2))


def _keep_mask(next_key: NextKey, input: Tensor, p: float, shape: Sequence[int]) -> Tensor:
    return random.bernoulli(next_key().to(input.device), 1 - p, tuple(shape))


def _scaled_mask(keep: Tensor, input: Tensor, p: float) -> Tensor:
    return keep.to(input.dtype).div(1 - p) if p < 1 else torch.zeros_like(keep, dtype=input.dtype)


def _apply_dropout(next_key: NextKey, input: Tensor, p: float, shape: Sequence[int], inplace: bool) -> Tensor:
    noise = _scaled_mask(_keep_mask(next_key, input, p, shape), input, p)
    return input.mul_(noise) if inplace else input * noise


_SATURATION = 1.7580993408473766  # SELU's scale times its alpha (Klambauer et al. 2017, arXiv:1706.02515)


def _apply_alpha_dropout(next_key: NextKey, input: Tensor, p: float, shape: Sequence[int], inplace: bool) -> Tensor:
    if p == 1:
        return input.mul_(0) if inplace else input * 0
    scale = 1 / math.sqrt((_SATURATION**2 * p + 1) * (1 - p))
    keep = _keep_mask(next_key, input, p, shape).to(input.dtype)
    noise, shift = keep * scale, (keep - 1) * (_SATURATION * scale) + _SATURATION * scale * p
    return input.mul_(noise).add_(shift) if inplace else input * noise + shift


def rrelu(
    next_key: NextKey,
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Scale negative entries by a random slope, as `F.rrelu`."""
    if not training:
        slope: Any = (lower + upper) / 2
    else:
        slope = random.uniform(next_key().to(input.device), input.shape, low=lower, high=upper, dtype=input.dtype)
    result = torch.where(input > 0, input, input * slope)
    return input.copy_(result) if inplace else result


def scaled_dot_product_attention(
    next_key: NextKey,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend with dropped weights: softmax(Q Kᵀ · scale + bias) V (Vaswani et al. 2017, arXiv:1706.03762, eq. 1)."""
    if not dropout_p:
        plain = in_transform_rule(F.scaled_dot_product_attention)
        return plain(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
    weights, value = attention_weights(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return dropout(next_key, weights, dropout_p) @ value


def fractional_max_pool(pooling: Callable[..., Any], spatial: int) -> Callable[..., Any]:
    """Return the keyed version of a fractional pooling: its regions are drawn from a key."""

    def keyed(next_key: NextKey, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = 1 if input.ndim == spatial + 1 else input.shape[0]
        shape = (rows, input.shape[-spatial - 1], spatial)
        kwargs["_random_samples"] = random.uniform(next_key().to(input.device), shape, dtype=input.dtype)
        if isinstance(kwargs.get("output_ratio"), float):
            kwargs["output_ratio"] = (kwargs["output_ratio"],) * spatial
        return in_transform_rule(pooling)(input, *args, **kwargs)

    return keyed


def recurrent(layers: Callable[..., Any]) -> Callable[..., Any]:
    """Return the keyed version of `torch.lstm`, `gru`, `rnn_tanh` or `rnn_relu`: dropout between its layers."""

    def keyed(next_key: NextKey, data: Tensor, second: Any, *rest: Any) -> Any:
        packed = isinstance(rest[1], list | tuple)  # a PackedSequence: then `batch_sizes` is the second argument
        hidden, head = (rest[0], (second,)) if packed else (second, ())
        weights, biases, num_layers, dropout_p, train, bidirectional, *tail = rest[1:] if packed else rest
        torch_layers = in_transform_rule(layers)
        if not (dropout_p and train and num_layers > 1):
            return torch_layers(data, second, *rest)
        size, layer_states = len(weights) // num_layers, _split_by_layer(hidden, num_layers)
        results = []
        for number in range(num_layers):
            layer_weights = weights[number * size : (number + 1) * size]
            state = layer_states[number]
            args = (*head, state) if packed else (state,)
            data, *new = torch_layers(data, *args, layer_weights, biases, 1, 0.0, train, bidirectional, *tail)
            results.append(new)
            data = dropout(next_key, data, dropout_p) if number + 1 < num_layers else data
        return (data, *(torch.cat(parts) for parts in zip(*results, strict=True)))

    return keyed


def _split_by_layer(hidden: Any, num_layers: int) -> list[Any]:
    if isinstance(hidden, Tensor):
        return list(hidden.chunk(num_layers))
    return list(zip(*(part.chunk(num_layers) for part in hidden), strict=True))

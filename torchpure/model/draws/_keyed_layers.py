"""Layers of torch that draw, answered from keys: dropout in all its forms, attention, recurrent layers, RReLU.

Each function here stands for the torch function of that name and takes its arguments after `draw`, which gives a new
key each time that it is called. What is computed is what torch documents; only where the numbers come from differs.
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

Draw = Callable[[], Key]


def dropout(draw: Draw, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero entries, as `F.dropout`."""
    _check_rate("dropout", p)
    return _dropped(draw, input, p, input.shape, inplace) if training and p else input


def feature_dropout(draw: Draw, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of (rows, channels, …), as `torch.feature_dropout`."""
    _check_rate("feature_dropout", p)
    return _dropped(draw, input, p, _channels(input), inplace) if training and p else input


def channel_dropout(spatial: int) -> Callable[..., Tensor]:
    """Return `F.dropout1d`, `F.dropout2d` or `F.dropout3d` as an answer."""

    def answer(draw: Draw, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        _check_rate(f"dropout{spatial}d", p)
        if not training or not p:
            return input
        # torch takes a third dimension of dropout2d for (rows, channels, length)
        alone = input.ndim == spatial + 1 and spatial != 2
        shape = (*input.shape[:1], *[1] * spatial) if alone else _channels(input)
        return _dropped(draw, input, p, shape, inplace)

    return answer


def alpha_dropout(draw: Draw, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Drop to the negative saturation of SELU, as `F.alpha_dropout`."""
    _check_rate("alpha_dropout", p)
    return _alpha_dropped(draw, input, p, input.shape, inplace) if training and p else input


def feature_alpha_dropout(
    draw: Draw, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Drop whole channels to the negative saturation of SELU, as `F.feature_alpha_dropout`."""
    _check_rate("feature_alpha_dropout", p)
    return _alpha_dropped(draw, input, p, _channels(input), inplace) if training and p else input


def native_dropout(draw: Draw, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Zero entries and return the mask too, as `torch.native_dropout`."""
    if train is False or not p:
        return input.clone(), torch.ones_like(input, dtype=torch.bool)
    keep = _kept(draw, input, p, input.shape)
    return input * _scaled(keep, input, p), keep


def _check_rate(who: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{who}: the probability must be in [0, 1], got {p}")


def _channels(input: Tensor) -> tuple[int, ...]:
    if input.ndim < 2:
        raise RuntimeError(f"feature dropout: wanted (rows, channels, …), got shape {tuple(input.shape)}")
    return (*input.shape[:2], *[1] * (input.ndim - 2))


def _kept(draw: Draw, input: Tensor, p: float, shape: Sequence[int]) -> Tensor:
    return random.bernoulli(draw().to(input.device), 1 - p, tuple(shape))


def _scaled(keep: Tensor, input: Tensor, p: float) -> Tensor:
    return keep.to(input.dtype).div(1 - p) if p < 1 else torch.zeros_like(keep, dtype=input.dtype)


def _dropped(draw: Draw, input: Tensor, p: float, shape: Sequence[int], inplace: bool) -> Tensor:
    noise = _scaled(_kept(draw, input, p, shape), input, p)
    return input.mul_(noise) if inplace else input * noise


_SATURATION = 1.7580993408473766  # SELU's scale times its alpha (Klambauer et al. 2017, arXiv:1706.02515)


def _alpha_dropped(draw: Draw, input: Tensor, p: float, shape: Sequence[int], inplace: bool) -> Tensor:
    if p == 1:
        return input.mul_(0) if inplace else input * 0
    scale = 1 / math.sqrt((_SATURATION**2 * p + 1) * (1 - p))
    keep = _kept(draw, input, p, shape).to(input.dtype)
    noise, shift = keep * scale, (keep - 1) * (_SATURATION * scale) + _SATURATION * scale * p
    return input.mul_(noise).add_(shift) if inplace else input * noise + shift


def rrelu(
    draw: Draw,
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
        slope = random.uniform(draw().to(input.device), input.shape, low=lower, high=upper, dtype=input.dtype)
    result = torch.where(input > 0, input, input * slope)
    return input.copy_(result) if inplace else result


def scaled_dot_product_attention(
    draw: Draw,
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
    return dropout(draw, weights, dropout_p) @ value


def fractional_max_pool(pool: Callable[..., Any], spatial: int) -> Callable[..., Any]:
    """Return a fractional pooling whose regions are drawn here."""

    def answer(draw: Draw, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = 1 if input.ndim == spatial + 1 else input.shape[0]
        shape = (rows, input.shape[-spatial - 1], spatial)
        kwargs["_random_samples"] = random.uniform(draw().to(input.device), shape, dtype=input.dtype)
        if isinstance(kwargs.get("output_ratio"), float):
            kwargs["output_ratio"] = (kwargs["output_ratio"],) * spatial
        return in_transform_rule(pool)(input, *args, **kwargs)

    return answer


def recurrent(layers: Callable[..., Any]) -> Callable[..., Any]:
    """Return `torch.lstm`, `gru`, `rnn_tanh` or `rnn_relu` with dropout between its layers."""

    def answer(draw: Draw, data: Tensor, second: Any, *rest: Any) -> Any:
        packed = isinstance(rest[1], list | tuple)  # then the sizes of the rows' batches come second
        hidden, head = (rest[0], (second,)) if packed else (second, ())
        weights, biases, num, rate, train, both, *tail = rest[1:] if packed else rest
        run = in_transform_rule(layers)
        if not (rate and train and num > 1):
            return run(data, second, *rest)
        size, states = len(weights) // num, _by_layer(hidden, num)
        results = []
        for number in range(num):
            own = weights[number * size : (number + 1) * size]
            state = states[number]
            args = (*head, state) if packed else (state,)
            data, *new = run(data, *args, own, biases, 1, 0.0, train, both, *tail)
            results.append(new)
            data = dropout(draw, data, rate) if number + 1 < num else data
        return (data, *(torch.cat(parts) for parts in zip(*results, strict=True)))

    return answer


def _by_layer(hidden: Any, num: int) -> list[Any]:
    if isinstance(hidden, Tensor):
        return list(hidden.chunk(num))
    return list(zip(*(part.chunk(num) for part in hidden), strict=True))

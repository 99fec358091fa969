"""Operations that are followed as the simpler operations that they consist of.

A composite takes the arguments of its operation, and runs under the mode that follows it. It returns NotImplemented for
arguments that it does not handle: torch's own operation is differentiated then. `SERIES` has more than `COMPOSITES`:
second derivatives have closed forms for the rest. `BLOCKWISE` is for derivatives of which blocks are known to be zero.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.transforms.calls import primal
from torchpure.transforms.engine import has_tangent, is_variable
from torchpure.transforms.overrides import attention_weights

Composite = Callable[..., Any]
FEW = 8  # entries of a product that are multiplied one by one


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p or (is_causal and attn_mask is not None) or query.dtype in {torch.float16, torch.bfloat16}:
        return NotImplemented
    weights, value = attention_weights(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return weights @ value


def _attention_divided_last(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Any:
    """Divide by the sum of the weights at the end (as in Rabe and Staats 2021, arXiv:2112.05682).

    The derivatives of the weights themselves are then never stored for all coordinates.
    """
    scale = options.pop("scale", None)
    plain = not any(isinstance(option, Tensor) or option for option in (*rest, *options.values()))
    if not plain or min(query.ndim, key.ndim, value.ndim) < 2:
        return _attention(query, key, value, *rest, scale=scale, **options)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    powers = torch.exp(scores - _greatest(scores, -1))
    return (powers @ value) * powers.sum(-1, keepdim=True).reciprocal()


def _multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    rare = (bias_k, bias_v, static_k, static_v)
    if add_zero_attn or (training and dropout_p) or any(part is not None for part in rare):
        return NotImplemented
    batched = query.ndim == 3
    query, key, value = _with_batch(query, key, value)
    if key_padding_mask is not None and not batched:
        key_padding_mask = key_padding_mask.unsqueeze(0)
    projections = q_proj_weight, k_proj_weight, v_proj_weight
    weights = projections if use_separate_proj_weight else in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    if query is key is value and not use_separate_proj_weight:
        parts = F.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
    else:
        parts = [F.linear(*each) for each in zip((query, key, value), weights, biases, strict=True)]
    q, k, v = (part.reshape(*part.shape[:2], num_heads, -1).permute(1, 2, 0, 3) for part in parts)
    mask, seen = _mask(attn_mask, key_padding_mask, num_heads, query), None
    if need_weights:
        shares, v = attention_weights(q, k, v, mask, False, None, False)
        seen = shares.mean(1) if average_attn_weights else shares
        out = shares @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, mask)
    out = F.linear(out.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    return (out, seen) if batched else (out.squeeze(1), None if seen is None else seen.squeeze(0))


def _with_batch(*sequences: Tensor) -> list[Tensor]:
    """Add a batch of one where there is none. What was one tensor stays one: it is projected once."""
    made = {id(one): one if one.ndim == 3 else one.unsqueeze(1) for one in sequences}
    return [made[id(one)] for one in sequences]


def _mask(attn_mask: Any, padding: Any, num_heads: int, query: Tensor) -> Tensor | None:
    """Return what is added to the scores, (batch, heads, queries, keys) or broadcast to it; True means unseen."""
    found = None
    if attn_mask is not None:
        found = _added(attn_mask, query)
        found = found if found.ndim == 2 else found.unflatten(0, (-1, num_heads))
    if padding is not None:
        one = _added(padding, query)[:, None, None, :]
        found = one if found is None else found + one
    return found


def _added(mask: Tensor, query: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(mask, -math.inf)


def _batch_norm(
    x: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if training or running_mean is None:
        return NotImplemented
    sizes = (-1, *[1] * (x.ndim - 2))
    out = (x - running_mean.reshape(sizes)) * torch.rsqrt(running_var.reshape(sizes) + eps)
    return _scaled(out, *(None if part is None else part.reshape(sizes) for part in (weight, bias)))


def _quotient(a: Any, b: Any, *, rounding_mode: Any = None) -> Any:
    if rounding_mode is not None or not isinstance(b, Tensor) or not (is_variable(b) and has_tangent(b)):
        return NotImplemented
    return a * b.reciprocal()


def _reverse_quotient(b: Tensor, a: Any) -> Any:
    return b.reciprocal() * a


def _gated(x: Tensor, dim: int = -1) -> Tensor:
    left, right = x.chunk(2, dim)
    return left * torch.sigmoid(right)


def _parametric_relu(x: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() > 1:
        weight = weight.reshape([-1 if dim == min(1, x.ndim - 1) else 1 for dim in range(x.ndim)])
    return torch.relu(x) - weight * torch.relu(-x)


def _interpolated(start: Tensor, end: Tensor, weight: Any) -> Tensor:
    return start + weight * (end - start)


def _plus_product(x: Tensor, a: Tensor, b: Tensor, *, value: Any = 1) -> Tensor:
    return x + (a * b if value == 1 else value * (a * b))


def _plus_quotient(x: Tensor, a: Tensor, b: Tensor, *, value: Any = 1) -> Tensor:
    return x + value * (a / b)


def _mean_of_squares(x: Tensor, y: Tensor, reduction: str = "mean", **kwargs: Any) -> Any:
    if reduction not in {"mean", "sum"} or any(part is not None for part in kwargs.values()):
        return NotImplemented
    squares = (x - y).square()
    return squares.mean() if reduction == "mean" else squares.sum()


def _modulus(z: Tensor) -> Any:
    return torch.linalg.vector_norm(torch.view_as_real(z), dim=-1) if z.is_complex() else NotImplemented


def _of_polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.complex(radius * torch.cos(angle), radius * torch.sin(angle))


def _unit(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, **kwargs: Any) -> Any:
    if p != 2 or any(one is not None for one in kwargs.values()):
        return NotImplemented
    return x * torch.linalg.vector_norm(x, 2, dim, keepdim=True).clamp_min(eps).reciprocal()


def _variance(x: Tensor, dim: Any = None, *, correction: int = 1, keepdim: bool = False) -> Any:
    if isinstance(dim, bool):
        return NotImplemented
    dims = tuple(range(x.ndim)) if dim is None else dim
    squares = (x - x.mean(dims, keepdim=True)).square()
    count = x.numel() // max(squares.detach().sum(dims).numel(), 1)
    return squares.sum(dims, keepdim=keepdim) / (count - correction)


def _product(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Multiply a few entries one by one: two factors have a rule, and zeros need none of their own."""
    rows = x.reshape(-1) if dim is None else x.movedim(dim, 0)
    if not 0 < len(rows) <= FEW:
        return NotImplemented
    factors = rows.unbind()
    out = factors[0]
    for factor in factors[1:]:
        out = out * factor
    return out.unsqueeze(dim) if keepdim and dim is not None else out


def _softmax(x: Tensor, dim: Any = None, *rest: Any, dtype: Any = None, _stacklevel: int = 3) -> Any:
    if dim is None or rest or dtype not in {None, x.dtype}:
        return NotImplemented
    powers = torch.exp(x - _greatest(x, dim))
    return powers * powers.sum(dim, keepdim=True).reciprocal()


def _log_softmax(x: Tensor, dim: Any = None, *rest: Any, dtype: Any = None, _stacklevel: int = 3) -> Any:
    if dim is None or rest or dtype not in {None, x.dtype}:
        return NotImplemented
    return x - torch.logsumexp(x, dim, keepdim=True)


def _logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    greatest = _greatest(x, dim)
    total = torch.exp(x - greatest).sum(dim, keepdim=keepdim).log()
    return total + (greatest if keepdim else greatest.squeeze(dim))


def _greatest(x: Tensor, dim: Any) -> Tensor:
    """Return the greatest entries, as constants: softmax does not depend on what is subtracted."""
    greatest = primal(x).amax(dim, keepdim=True)
    return greatest.masked_fill(greatest.isinf(), 0.0)


def _layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    return _scaled(_root_mean_square(x - x.mean(dims, keepdim=True), dims, eps), weight, bias)


def _rms_norm(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    return _scaled(_root_mean_square(x, dims, torch.finfo(x.dtype).eps if eps is None else eps), weight, None)


def _group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    parts = x.reshape(x.shape[0], groups, -1)
    out = _root_mean_square(parts - parts.mean(-1, keepdim=True), (-1,), eps).reshape(x.shape)
    return _scaled(out, *(None if part is None else part.reshape(-1, *[1] * (x.ndim - 2)) for part in (weight, bias)))


def _root_mean_square(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    return x * (x.square().mean(dims, keepdim=True) + eps).sqrt().reciprocal()


def _scaled(x: Tensor, weight: Any, bias: Any) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


_EVERYWHERE: dict[Any, Composite] = {
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _multi_head_attention,
    F.batch_norm: _batch_norm,
    **dict.fromkeys((torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.divide), _quotient),
    **dict.fromkeys((Tensor.true_divide, Tensor.__truediv__, Tensor.__div__), _quotient),
    **dict.fromkeys((Tensor.__rtruediv__, Tensor.__rdiv__), _reverse_quotient),
    F.glu: _gated,
    **dict.fromkeys((F.prelu, torch.prelu, Tensor.prelu), _parametric_relu),
    **dict.fromkeys((torch.lerp, Tensor.lerp), _interpolated),
    **dict.fromkeys((torch.addcmul, Tensor.addcmul), _plus_product),
    **dict.fromkeys((torch.addcdiv, Tensor.addcdiv), _plus_quotient),
    F.mse_loss: _mean_of_squares,
    F.normalize: _unit,
    torch.polar: _of_polar,
    **dict.fromkeys((torch.abs, torch.absolute, Tensor.abs, Tensor.absolute, Tensor.__abs__), _modulus),
    **dict.fromkeys((torch.var, Tensor.var), _variance),
    **dict.fromkeys((torch.prod, Tensor.prod), _product),
}
COMPOSITES = dict(_EVERYWHERE)
SERIES: dict[Any, Composite] = {
    **_EVERYWHERE,
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax), _softmax),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax), _log_softmax),
    **dict.fromkeys((torch.logsumexp, Tensor.logsumexp, torch.special.logsumexp), _logsumexp),
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    **dict.fromkeys((F.rms_norm, torch.rms_norm), _rms_norm),
    F.group_norm: _group_norm,
}
BLOCKWISE: dict[Any, Composite] = {**SERIES, F.scaled_dot_product_attention: _attention_divided_last}


def run_composite(table: dict[Any, Composite], func: Any, args: Any, kwargs: Any) -> Any:
    """Run the simpler operations; return NotImplemented if there are none for these arguments.

    >>> float(run_composite(SERIES, torch.lerp, (torch.tensor(1.0), torch.tensor(3.0), 0.5), {}))
    2.0
    """
    composite = table.get(func)
    if composite is None or kwargs.get("out") is not None:
        return NotImplemented
    return composite(*args, **kwargs)

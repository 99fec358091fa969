"""Layers in plain operations: embedding bags, weight norm, bilinear, fractional pooling, activations, and small ones.

torch lacks a vmap rule, a forward derivative or a second derivative for each of them; the second derivative of its
weight norm is wrong. The rules run inside transforms only. Outside, torch's own kernels are faster. Its norms of
weights square numbers, which is wrong far out: there the rules run in every gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchpure._torch import weight_norm as torch_weight_norm
from torchpure.transforms.engine import is_differentiated
from torchpure.transforms.formulas import normalize, right_in_torch, vector_norm

from ._override import Override, Where


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return g · v / ‖v‖ (Salimans and Kingma 2016, arXiv:1602.07868, equation 2)."""
    return g * normalize(v, 2, _other_dims(v, dim), 0.0)


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """Compute `torch.norm_except_dim`: norms over all dimensions but one."""
    norms = vector_norm(v, pow, _other_dims(v, dim), keepdim=True)
    return norms.reshape(()) if dim == -1 else norms


def _if_far_out(operation: Callable[..., Tensor], rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the rule of an operation of weights that is right in torch if the squares of their norms are in range."""

    def run(v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        known = lambda: torch.norm_except_dim(v.detach(), 2, dim)  # noqa: E731
        right = not is_differentiated(v) or right_in_torch(known, 2.0, v) is not None
        return (operation if right else rule)(v, *args, **kwargs)

    return run


def _other_dims(v: Tensor, dim: int) -> tuple[int, ...]:
    """Return all dimensions but one; all for -1, as torch has it."""
    return tuple(range(v.ndim)) if dim == -1 else tuple(other for other in range(v.ndim) if other != dim % v.ndim)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `F.bilinear`: x₁ᵀ A x₂ + b for each output."""
    if input1.shape[:-1] != input2.shape[:-1]:
        return F.bilinear(input1, input2, weight, bias)  # raises
    result = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return result if bias is None else result + bias


def index_copy_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Compute `Tensor.index_copy_`: copy slices of the source to the given indices."""
    source = source.reshape(1) if source.ndim == 0 and self.ndim == 1 else source
    wanted = [index.numel() if d == dim % self.ndim else size for d, size in enumerate(self.shape)]
    if self.ndim == 0 or list(source.shape) != wanted or source.dtype != self.dtype or index.dtype != torch.int64:
        return self.index_copy_(dim, index, source)  # a number, or raises
    expanded = index.reshape([-1 if d == dim % self.ndim else 1 for d in range(self.ndim)]).expand_as(source)
    return self.copy_(self.scatter(dim, expanded, source))


def fractional_max_pool(spatial: int) -> Callable[..., Any]:
    """Return the rule of `F.fractional_max_pool2d` or `3d` (Graham 2014, arXiv:1412.6071, section 3)."""
    operation: Any = F.fractional_max_pool2d if spatial == 2 else F.fractional_max_pool3d

    def pool(
        input: Tensor,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> Any:
        if _random_samples is None or (output_size is None) is (output_ratio is None):  # it draws, or raises
            return operation(input, kernel_size, output_size, output_ratio, return_indices, _random_samples)
        batched = input if input.ndim == spatial + 2 else input.unsqueeze(0)
        sizes, kernel = batched.shape[2:], _each(kernel_size, spatial)
        out = (
            _each(output_size, spatial)
            if output_size is not None
            else [int(size * ratio) for size, ratio in zip(sizes, _each(output_ratio, spatial), strict=True)]
        )
        if any(size < width + number - 1 for size, width, number in zip(sizes, kernel, out, strict=True)):
            return operation(input, kernel_size, output_size, output_ratio, return_indices, _random_samples)  # raises
        # torch takes the first of two samples for the last dimension
        samples = _random_samples.flip(-1) if spatial == 2 else _random_samples
        starts = [_starts(samples[..., d], sizes[d], out[d], kernel[d]) for d in range(spatial)]
        positions = _positions(starts, kernel, sizes)
        flat = positions.reshape(*batched.shape[:2], -1)
        windows = batched.flatten(2).gather(2, flat).reshape(*batched.shape[:2], math.prod(out), -1)
        values, which = windows.max(-1)
        indices = positions.reshape(*windows.shape).gather(-1, which.unsqueeze(-1)).squeeze(-1)
        shape = (*batched.shape[:2], *out) if input.ndim == spatial + 2 else (batched.shape[1], *out)
        return (values.reshape(shape), indices.reshape(shape)) if return_indices else values.reshape(shape)

    return pool


def _each(value: Any, count: int) -> list[Any]:
    return [value] * count if isinstance(value, int | float) else list(value)


def _starts(sample: Tensor, size: int, out: int, kernel: int) -> Tensor:
    """Return the first position of each region: (rows, channels, regions)."""
    if out == 1:
        return torch.full((*sample.shape, 1), size - kernel, device=sample.device)
    alpha = (size - kernel) / (out - 1)
    steps = torch.arange(out - 1, device=sample.device)
    begin = ((steps + sample.unsqueeze(-1)) * alpha).long() - (sample.unsqueeze(-1) * alpha).long()
    return torch.cat([begin, torch.full_like(begin[..., :1], size - kernel)], -1)


def _positions(starts: list[Tensor], kernel: list[int], sizes: Any) -> Tensor:
    """Return the positions of each region's entries in the flat image: (rows, channels, regions, entries)."""
    positions = torch.zeros((*starts[0].shape[:2], 1, 1), dtype=torch.int64, device=starts[0].device)
    for begin, width, size in zip(starts, kernel, sizes, strict=True):
        along = begin.unsqueeze(-1) + torch.arange(width, device=begin.device)  # (rows, channels, regions, width)
        positions = positions[:, :, :, None, :, None] * size + along[:, :, None, :, None, :]
        positions = positions.flatten(4, 5).flatten(2, 3)
    return positions


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Compute `F.embedding_bag`: the sum, mean or maximum of the rows of each bag."""
    weighted = per_sample_weights is not None
    if (
        max_norm is not None
        or scale_grad_by_freq
        or mode not in _MODES
        or (weighted and (mode != "sum" or per_sample_weights.shape != input.shape))
        or (input.ndim == 2) is not (offsets is None)
        or input.dtype not in _INDICES
    ):
        return F.embedding_bag(  # changes the weight, has another gradient, or raises
            input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, False, per_sample_weights,
            include_last_offset, padding_idx,
        )  # fmt: skip
    count, bags = _bags(input, offsets, include_last_offset)
    indices = input.reshape(-1).long()
    rows = weight[indices]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    kept = torch.ones_like(rows[:, :1])
    if padding_idx is not None:
        kept = (indices != padding_idx % len(weight)).to(rows).unsqueeze(1)
    if mode == "max":
        return _maxima(rows, kept, bags, count)
    total = rows.new_zeros(count, rows.shape[1]).index_add(0, bags, rows * kept)
    if mode == "sum":
        return total
    return total / rows.new_zeros(count, 1).index_add(0, bags, kept).clamp(min=1)


_MODES = frozenset({"sum", "mean", "max"})
_INDICES = frozenset({torch.int32, torch.int64})


def _bags(input: Tensor, offsets: Tensor | None, last: bool) -> tuple[int, Tensor]:
    """Return the number of bags, and the bag of each entry."""
    if input.ndim == 2:
        count, size = input.shape
        return count, torch.arange(count, device=input.device).repeat_interleave(size)
    assert offsets is not None
    starts = offsets[:-1] if last else offsets
    entries = torch.arange(input.shape[0], device=input.device)
    return starts.shape[0], (entries.unsqueeze(1) >= starts).sum(1) - 1


def _maxima(rows: Tensor, kept: Tensor, bags: Tensor, count: int) -> Tensor:
    if not len(rows):
        return rows.new_zeros(count, rows.shape[1])
    member = (bags == torch.arange(count, device=bags.device).unsqueeze(1)) & (kept.squeeze(1) > 0)
    masked = rows.unsqueeze(0).masked_fill(~member.unsqueeze(2), -math.inf)
    return masked.amax(1).masked_fill(~member.any(1, keepdim=True), 0.0)


def _with_dense_gradient(operation: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Make the rule of an operation that has the argument `sparse` at a position: a gradient has its weight's layout.

    torch's transforms cannot follow sparse gradients, and optimizers cannot add them to their states.
    """

    def rule(*args: Any, **kwargs: Any) -> Any:
        if len(args) > position:
            args = (*args[:position], False, *args[position + 1 :])
        elif "sparse" in kwargs:
            kwargs = {**kwargs, "sparse": False}
        return operation(*args, **kwargs)

    return rule


def _data(self: Tensor, *_: Any) -> Tensor:
    return self.detach()


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    out = F.relu6(input + 3) / 6
    return input.copy_(out) if inplace else out


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    """Compute `F.glu`, whose forward derivative torch maps one member at a time."""
    if not input.ndim or input.shape[dim] % 2:
        return F.glu(input, dim)  # raises
    first, gate = input.chunk(2, dim)
    return first * torch.sigmoid(gate)


def _rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Compute `F.rrelu`, which draws nothing in evaluation."""
    if training:
        return F.rrelu(input, lower, upper, training, inplace)
    return F.leaky_relu(input, (lower + upper) / 2, inplace)


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.numel() not in {1, channels} or weight.dtype != input.dtype:
        return torch.prelu(input, weight)  # raises
    return torch.where(input > 0, input, input * weight.reshape([-1 if d == 1 else 1 for d in range(input.ndim)]))


OVERRIDES = (
    Override([F.embedding], Where.ALWAYS, _with_dense_gradient(F.embedding, 6)),
    Override([F.embedding_bag], Where.ALWAYS, _with_dense_gradient(F.embedding_bag, 7)),
    Override([torch.embedding], Where.ALWAYS, _with_dense_gradient(torch.embedding, 4)),
    Override([torch.embedding_bag], Where.ALWAYS, _with_dense_gradient(torch.embedding_bag, 5)),
    Override([F.hardsigmoid], Where.IN_TRANSFORM, _hardsigmoid),
    Override([F.glu], Where.FORWARD_MODE, _glu),
    Override([F.rrelu], Where.IN_TRANSFORM, _rrelu),
    Override([torch.prelu, Tensor.prelu], Where.FORWARD_MODE | Where.IN_TRANSFORM, _prelu),
    Override([Tensor.data.__get__], Where.IN_TRANSFORM, _data),  # type: ignore[attr-defined]
    Override([Tensor.index_copy_], Where.IN_TRANSFORM, index_copy_),
    Override([F.bilinear], Where.IN_TRANSFORM, bilinear),
    Override([F.fractional_max_pool2d], Where.IN_TRANSFORM, fractional_max_pool(2)),
    Override([F.fractional_max_pool3d], Where.IN_TRANSFORM, fractional_max_pool(3)),
    Override([F.embedding_bag], Where.IN_TRANSFORM, embedding_bag),
    Override([torch.norm_except_dim], Where.IN_TRANSFORM, norm_except_dim),
    Override([torch.norm_except_dim], Where.ALWAYS, _if_far_out(torch.norm_except_dim, norm_except_dim)),
    Override([torch_weight_norm], Where.ALWAYS, _if_far_out(torch_weight_norm, weight_norm)),
    Override([torch_weight_norm], Where.IN_TRANSFORM, weight_norm),
)

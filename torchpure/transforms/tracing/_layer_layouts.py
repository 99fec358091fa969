"""Layouts of the results of network layers on the CPU, by formula.

torch's own kernels for shapes of these layers are Python code. The first of them imports torch.compile, which takes
more than a second. A rule raises TypeError where it does not know the layout, or where an argument does not fit: torch
says then what is wrong.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._layout import Found, Layout, row_major

_aten = torch.ops.aten
_RANKS = {
    torch.contiguous_format: range(1, 64), torch.channels_last: (4,), torch.channels_last_3d: (5,),
}  # fmt: skip


def layer_layout(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Found:
    """Return the layout of the results of a layer.

    Raises:
        TypeError: no rule knows it.
    """
    rule = LAYERS.get(func)
    if rule is None:
        raise TypeError("an operation without a rule")
    return rule(*args, **kwargs)


def has_layer_layout(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a rule knows the layout of the results of a layer."""
    try:
        layer_layout(func, args, kwargs)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return False
    return True


def _check(fits: bool) -> None:
    if not fits:
        raise TypeError("not a common case")


def _check_alike(x: Tensor, *others: Tensor | None) -> None:
    """Check that tensors are of floating point, contiguous, and of the dtype of the first one."""
    _check(x.is_floating_point() and x.is_contiguous() and x.numel() > 0)
    _check(all(one is None or (one.is_contiguous() and one.dtype == x.dtype) for one in others))


def _check_rows(size: int, *rows: Tensor | None) -> None:
    _check(all(row is None or row.shape == (size,) for row in rows))


def _wanted(found: Sequence[Layout], mask: Sequence[bool]) -> Found:
    return tuple([layout if asked else None for layout, asked in zip(found, mask, strict=True)])


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> Layout:  # fmt: skip
    _check_alike(x, weight, bias)
    dims = x.ndim - 2
    _check(dims in {1, 2, 3} and weight.ndim == x.ndim and groups > 0 and not _is_ambiguous(x))
    _check(all(len(sizes) == dims for sizes in (stride, padding, dilation)) and min(stride) > 0)
    inputs, outputs = (
        (weight.shape[0], weight.shape[1] * groups) if transposed else (weight.shape[1] * groups, weight.shape[0])
    )
    _check(x.shape[1] == inputs and outputs % groups == 0)
    _check_rows(outputs, bias)
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    reached = [(size, step, 2 * pad, spread * (kernel - 1)) for size, kernel, step, pad, spread in sizes]
    if transposed:
        _check(len(output_padding) == dims)
        area = [
            (n - 1) * step - pad + k + more + 1 for (n, step, pad, k), more in zip(reached, output_padding, strict=True)
        ]
    else:
        _check(not any(output_padding))
        area = [(n + pad - k - 1) // step + 1 for n, step, pad, k in reached]
    _check(min(area) > 0)
    return row_major((x.shape[0], outputs, *area), x.dtype)


def _is_ambiguous(x: Tensor) -> bool:
    """Tell whether memory is both row-major and channels last: kernels choose one of the two."""
    patterns = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.ndim in patterns and x.is_contiguous(memory_format=patterns[x.ndim])


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: Sequence[int] | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
    mask: Sequence[bool],
) -> Found:  # fmt: skip
    wanted = _convolution(x, weight, None, stride, padding, dilation, transposed, output_padding, groups)
    _check_alike(gradient, x)
    _check(gradient.shape == tuple(wanted.shape) and not _is_ambiguous(gradient))
    bias = row_major((gradient.shape[1],), x.dtype)
    return _wanted([row_major(x.shape, x.dtype), row_major(weight.shape, x.dtype), bias], mask)


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> Found:  # fmt: skip
    _check_alike(x, weight, bias, mean, variance)
    _check(x.ndim >= 2 and not _is_ambiguous(x) and (training or (mean is not None and variance is not None)))
    _check_rows(x.shape[1], weight, bias, mean, variance)
    statistics = row_major((x.shape[1] if training else 0,), x.dtype)
    return row_major(x.shape, x.dtype), statistics, statistics


def _batch_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    saved_mean: Tensor | None, saved_deviation: Tensor | None, training: bool, eps: float, mask: Sequence[bool],
) -> Found:  # fmt: skip
    _check_alike(x, gradient, weight, mean, variance)
    _check(gradient.shape == x.shape and x.ndim >= 2 and not _is_ambiguous(x))
    row = row_major((x.shape[1],), x.dtype)
    return _wanted([row_major(x.shape, x.dtype), row, row], mask)


def _group_norm(
    x: Tensor, weight: Any, bias: Any, batch: int, channels: int, area: int, groups: int, *_more: Any
) -> Found:
    statistics = row_major((batch, groups), x.dtype)
    return _as_picture(x), statistics, statistics


def _group_norm_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Any, batch: int, channels: int, area: int,
    groups: int, wanted: Sequence[bool],
) -> Found:  # fmt: skip
    row = row_major((channels,), x.dtype)
    return tuple([part if asked else None for part, asked in zip((_as_picture(x), row, row), wanted, strict=True)])


def _as_picture(x: Tensor) -> Layout:
    """Lay a result out as torch's kernels for pictures do: torch's kernels for shapes say row-major in all cases."""
    for pattern in (torch.contiguous_format, torch.channels_last, torch.channels_last_3d):
        if x.ndim in _RANKS[pattern] and x.is_contiguous(memory_format=pattern):
            return Layout(x.shape, x.stride(), x.dtype)
    raise TypeError("another order of dimensions")


def _layer_norm(x: Tensor, sizes: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Found:
    _check_alike(x, weight, bias)
    rows = x.ndim - len(sizes)
    _check(0 <= rows < x.ndim and all(one is None or one.shape == tuple(sizes) for one in (weight, bias)))
    _check(x.shape[rows:] == tuple(sizes))
    statistics = row_major((*x.shape[:rows], *[1] * len(sizes)), x.dtype)
    return row_major(x.shape, x.dtype), statistics, statistics


def _layer_norm_backward(
    gradient: Tensor, x: Tensor, sizes: Sequence[int], mean: Tensor, deviation: Tensor, weight: Tensor | None,
    bias: Tensor | None, mask: Sequence[bool],
) -> Found:  # fmt: skip
    _check_alike(x, gradient, weight, bias, mean, deviation)
    _layer_norm(x, sizes, weight, bias, 0.0)
    _check(gradient.shape == x.shape and weight is not None and bias is not None)
    row = row_major(sizes, x.dtype)
    return _wanted([row_major(x.shape, x.dtype), row, row], mask)


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Layout:
    _check_alike(x)
    _check(-x.ndim <= dim < x.ndim and not half_to_float)
    return row_major(x.shape, x.dtype)


def _softmax_backward(gradient: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Layout:
    _check_alike(output, gradient)
    _check(gradient.shape == output.shape and dtype == output.dtype and -output.ndim <= dim < output.ndim)
    return row_major(output.shape, output.dtype)


def _variance(x: Tensor, dims: Sequence[int] | None = None, *, correction: Any = None, keepdim: bool = False) -> Layout:
    _check_alike(x)
    reduced = {range(x.ndim)[dim] for dim in dims} if dims else set(range(x.ndim))
    sizes = [1 if dim in reduced else size for dim, size in enumerate(x.shape) if keepdim or dim not in reduced]
    _check(not dims or len(reduced) == len(dims))
    return row_major(sizes, x.dtype)


def _variance_and_mean(x: Tensor, dims: Sequence[int] | None = None, **options: Any) -> Found:
    found = _variance(x, dims, **options)
    return found, found


def _likelihood_loss(x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int) -> Found:
    _check_alike(x, weight)
    _check(x.ndim == 2 and target.shape == x.shape[:1] and target.dtype == torch.int64)
    _check_rows(x.shape[1], weight)
    return row_major(() if reduction else x.shape[:1], x.dtype), row_major((), x.dtype)


def _likelihood_loss_backward(gradient: Tensor, x: Tensor, *rest: Any) -> Layout:
    target, weight, reduction, ignored, total = rest
    _likelihood_loss(x, target, weight, reduction, ignored)
    _check(gradient.shape == (() if reduction else x.shape[:1]) and total.ndim == 0)
    return row_major(x.shape, x.dtype)


def _max_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,), ceil: bool = False,
) -> tuple[Layout, Layout]:  # fmt: skip
    out = _pool(x, kernel, stride or kernel, padding, dilation, ceil)
    return out, row_major(out.shape, torch.int64)


def _average_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,), ceil: bool = False,
    *rest: Any,
) -> Layout:  # fmt: skip
    return _pool(x, kernel, stride or kernel, padding, (1,), ceil)


def _pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], ceil: bool
) -> Layout:
    _check_alike(x)
    _check(x.ndim == 4 and not ceil and not _is_ambiguous(x))
    sizes = [[*given] * (2 if len(given) == 1 else 1) for given in (kernel, stride, padding, dilation)]
    _check(
        all(len(given) == 2 for given in sizes) and all(2 * pad <= k for k, pad in zip(sizes[0], sizes[2], strict=True))
    )
    area = [
        (n + 2 * pad - spread * (k - 1) - 1) // step + 1
        for n, k, step, pad, spread in zip(x.shape[2:], *sizes, strict=True)
    ]
    _check(min(area) > 0)
    return row_major((*x.shape[:2], *area), x.dtype)


def _max_pool_backward(gradient: Tensor, x: Tensor, *rest: Any) -> Layout:
    *window, indices = rest
    _check_alike(x, gradient)
    _check(gradient.shape == tuple(_max_pool(x, *window)[0].shape) and indices.shape == gradient.shape)
    return row_major(x.shape, x.dtype)


def _average_pool_backward(gradient: Tensor, x: Tensor, *window: Any) -> Layout:
    _check_alike(x, gradient)
    _check(gradient.shape == tuple(_average_pool(x, *window).shape))
    return row_major(x.shape, x.dtype)


LAYERS: dict[Any, Any] = {
    _aten.convolution.default: _convolution,
    _aten.convolution_backward.default: _convolution_backward,
    _aten.native_batch_norm.default: _batch_norm,
    _aten.native_batch_norm_backward.default: _batch_norm_backward,
    _aten.native_group_norm.default: _group_norm,
    _aten.native_group_norm_backward.default: _group_norm_backward,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.native_layer_norm_backward.default: _layer_norm_backward,
    **dict.fromkeys((_aten._softmax.default, _aten._log_softmax.default), _softmax),
    **dict.fromkeys(
        (_aten._softmax_backward_data.default, _aten._log_softmax_backward_data.default), _softmax_backward
    ),
    _aten.nll_loss_forward.default: _likelihood_loss,
    _aten.nll_loss_backward.default: _likelihood_loss_backward,
    _aten.max_pool2d_with_indices.default: _max_pool,
    _aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    _aten.avg_pool2d.default: _average_pool,
    _aten.avg_pool2d_backward.default: _average_pool_backward,
    _aten.var.correction: _variance,
    _aten.var_mean.correction: _variance_and_mean,
}

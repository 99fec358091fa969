"""Shapes, strides and dtypes of results, without torch's kernels for shapes where that is possible.

Many of those kernels are Python code that takes a tenth of a millisecond, and the first of them imports torch.compile.
So rules for contiguous tensors come first, and what was found is kept: it depends on the layouts of the arguments.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._layer_layouts import has_layer_layout, layer_layout
from ._layout import Found, Layout, dense, row_major
from ._run_on_zeros import MAX_ELEMENTS, RUNNABLE, zeros_like

_aten = torch.ops.aten
_MAX_KNOWN = 1 << 14  # layouts that are kept; a network has some hundreds
_known: dict[Any, Found] = {}


def results(func: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operation that returns no view returns for tensors on the device `meta`."""
    try:
        key: Any = (func, torch.get_default_dtype(), _key(args), _key(tuple(kwargs.items())) if kwargs else ())
        found = _known.get(key)
    except TypeError:  # an argument cannot be hashed
        key = found = None
    if found is None:
        found = _by_rule(func, args, kwargs) or _layout_of(func(*args, **kwargs))
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[key] = found
    return found.empty() if isinstance(found, Layout) else tuple([part and part.empty() for part in found])


def _key(args: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        [
            (arg.shape, arg.stride(), arg.dtype)
            if isinstance(arg, Tensor)
            else _key(arg)
            if isinstance(arg, list | tuple)
            else (type(arg), arg, str(arg))  # 0.0 equals -0.0 and False
            for arg in args
        ]
    )


def _layout_of(out: Any) -> Found:
    if isinstance(out, Tensor):
        return Layout(out.shape, out.stride(), out.dtype)
    return tuple([part if part is None else Layout(part.shape, part.stride(), part.dtype) for part in out])


def _by_rule(func: Any, args: Any, kwargs: Any) -> Found | None:
    """Return the layout of a result without torch's kernel; None if there is no rule, or something is wrong."""
    rule = _RULES.get(func) or (_elementwise if torch.Tag.pointwise in func.tags else None)
    try:
        return None if rule is None else rule(func, *args, **kwargs)
    except (RuntimeError, IndexError, TypeError, ValueError, ZeroDivisionError):  # torch's kernel says what is wrong
        return None


def _elementwise(func: Any, *args: Any, **kwargs: Any) -> Layout:
    """Shapes broadcast. The operation itself tells the dtype, from tensors of one element."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    shape = _broadcast([tensor.shape for tensor in tensors])
    ones = [torch.ones((1,) * arg.ndim, dtype=arg.dtype) if isinstance(arg, Tensor) else arg for arg in args]
    return Layout(shape, _elementwise_strides(shape, tensors), func(*ones, **kwargs).dtype)


def _elementwise_strides(shape: Sequence[int], tensors: Sequence[Tensor]) -> Sequence[int]:
    """Lay a result out as torch does: in the order of dimensions of the first argument that has an order."""
    if all(tensor.shape == shape and tensor.is_contiguous() for tensor in tensors):
        return dense(shape, range(len(shape)))
    strides = [
        (0,) * (len(shape) - tensor.ndim)
        + tuple([0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)])
        for tensor in tensors
    ]
    order: list[int] = []  # innermost first
    for dim in reversed(range(len(shape))):
        place = len(order)
        for index in reversed(range(len(order))):
            comparison = _compare(order[index], dim, shape, strides)
            if comparison < 0:
                break
            if comparison > 0:
                place = index
        order.insert(place, dim)
    return dense(shape, list(reversed(order)))


def _compare(inner: int, outer: int, shape: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    """Return 1 if the dimensions must change places, -1 if they must not, 0 if no argument tells."""
    for found in strides:
        if found[inner] and found[outer]:
            if found[inner] != found[outer]:
                return 1 if found[inner] > found[outer] else -1
            if shape[inner] > shape[outer]:
                return 1
    return 0


def _broadcast(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """`torch.broadcast_shapes`, which imports sympy."""
    rank = max(map(len, shapes))
    columns = zip(*((1,) * (rank - len(shape)) + tuple(shape) for shape in shapes), strict=True)
    sizes = [set(column) - {1} or {1} for column in columns]
    if any(len(found) > 1 for found in sizes):
        raise TypeError("shapes that do not broadcast")
    return tuple([found.pop() for found in sizes])


def _stack(_: Any, tensors: Sequence[Tensor], dim: int = 0) -> Layout:
    shape, dtype = _common(tensors)
    place = range(len(shape) + 1)[dim]
    return row_major((*shape[:place], len(tensors), *shape[place:]), dtype)


def _common(tensors: Sequence[Tensor]) -> tuple[Sequence[int], torch.dtype]:
    found = {(tensor.shape, tensor.dtype) for tensor in tensors if tensor.is_contiguous()}
    if len(found) != 1 or not all(map(Tensor.is_contiguous, tensors)):
        raise TypeError("tensors that differ")
    return found.pop()


def _product(_: Any, *args: Tensor, **factors: Any) -> Layout:
    """`mm`, `bmm`, and `addmm`, `baddbmm` with a first argument that is added."""
    a, b = args[-2:]
    rank = a.ndim
    fits = b.ndim == rank and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    shape = (*a.shape[:-1], b.shape[-1])
    if not fits or any(_broadcast([arg.shape, shape]) != shape or arg.dtype != a.dtype for arg in args[:-2]):
        raise TypeError("matrices that do not fit")
    if a.dtype != b.dtype:
        raise TypeError("several dtypes")
    return row_major(shape, a.dtype)


def _reduction(
    func: Any, x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Layout:
    """`sum`, `mean`, `amax` and `amin`."""
    reduced = {range(x.ndim)[dim] for dim in dims} if dims else set(range(x.ndim))
    sizes = [1 if dim in reduced else size for dim, size in enumerate(x.shape) if keepdim or dim not in reduced]
    if dtype is None:
        dtype = torch.int64 if func in _SUMS and not _has_fractions(x) else x.dtype
    if (func in _MEANS and not _has_fractions(x)) or not x.numel():
        raise TypeError("torch checks")
    return row_major(sizes, dtype)


def _has_fractions(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _like(
    _: Any, x: Tensor, *value: Any, dtype: Any = None, memory_format: Any = None, pin_memory: Any = None,
    layout: Any = None, non_blocking: Any = None,
) -> Layout:  # fmt: skip
    """A tensor of the layout of another one, such as a copy."""
    dtype = dtype or x.dtype
    if memory_format is torch.contiguous_format:
        return row_major(x.shape, dtype)
    strides = _elementwise_strides(x.shape, [x])
    if memory_format not in {None, torch.preserve_format} or (1 in x.shape and strides != x.stride()):
        raise TypeError("another order of dimensions")
    return Layout(x.shape, strides, dtype)


def _new(
    _: Any, x: Tensor, shape: Sequence[int], *rest: Any, dtype: Any = None, pin_memory: Any = None, layout: Any = None
) -> Layout:
    return row_major(shape, dtype or x.dtype)


def _make(
    _: Any, shape: Sequence[int], *, dtype: Any = None, device: Any = None, pin_memory: Any = None, layout: Any = None
) -> Layout:
    return row_major(shape, dtype or torch.get_default_dtype())


def _full(func: Any, shape: Sequence[int], value: Any, *, dtype: Any = None, **options: Any) -> Layout:
    return row_major(shape, dtype or torch.full((), value).dtype)


def _arange(func: Any, *bounds: Any, dtype: Any = None, **options: Any) -> Layout:
    start, end, step = (*bounds, 1) if len(bounds) == 2 else bounds if len(bounds) == 3 else (0, *bounds, 1)
    if not 0 <= (end - start) / step <= MAX_ELEMENTS:
        raise TypeError("many numbers, or an error")
    found = torch.arange(*bounds, dtype=dtype)
    return row_major(found.shape, found.dtype)


def _embedding(_: Any, weight: Tensor, index: Tensor, *rest: Any) -> Layout:
    return row_major((*index.shape, *weight.shape[1:]), weight.dtype)


def _embedding_backward(_: Any, gradient: Tensor, index: Tensor, count: int, *rest: Any) -> Layout:
    return row_major((count, gradient.shape[-1]), gradient.dtype)


def _cat(_: Any, tensors: Sequence[Tensor], dim: int = 0) -> Layout:
    place = range(tensors[0].ndim)[dim]
    rests = {(*one.shape[:place], *one.shape[place + 1 :], one.ndim, one.dtype, one.is_contiguous()) for one in tensors}
    if len(rests) != 1 or not tensors[0].is_contiguous():
        raise TypeError("tensors that differ")
    shape = list(tensors[0].shape)
    shape[place] = sum(one.shape[place] for one in tensors)
    return row_major(shape, tensors[0].dtype)


def _ctc_loss(_: Any, scores: Tensor, *rest: Any, **options: Any) -> Found:
    """Losses, and the table that their gradient reads: its size depends on numbers, and is not known here."""
    return row_major(scores.shape[1:2] if scores.ndim == 3 else (), scores.dtype), row_major((0,), scores.dtype)


def _ctc_loss_backward(_: Any, gradient: Tensor, scores: Tensor, *rest: Any, **options: Any) -> Layout:
    return row_major(scores.shape, scores.dtype)


def _least_squares(func: Any, *args: Any, driver: Any = None, **options: Any) -> Found:
    """Run on zeros: for other drivers the size of the residuals depends on numbers."""
    if driver not in {None, "gelsy"}:
        raise TypeError("a size that depends on numbers")
    return _by_running(func, *args, **options)


def _layer(func: Any, *args: Any, **kwargs: Any) -> Found:
    return layer_layout(func, args, kwargs)


def _by_running(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run the operation on zeros, if no rule knows the layout: the time is short, because `can_run` limits it."""
    if has_layer_layout(func, args, kwargs):
        return layer_layout(func, args, kwargs)
    return _layout_of(func(*zeros_like(args), **kwargs))


def _index_put(func: Any, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, *rest: Any) -> Layout:
    """A copy of the first argument, where the values fit to the leading dimensions that are indexed."""
    if any(index is None or index.dtype != torch.int64 for index in indices) or values.dtype != x.dtype:
        raise TypeError("not a common case")
    shape = (*_broadcast([index.shape for index in indices if index is not None]), *x.shape[len(indices) :])
    if _broadcast([values.shape, shape]) != shape:
        raise TypeError("values that do not fit")
    return _like(func, x)


def _gather(_: Any, x: Tensor, dim: int, index: Tensor, *rest: Any) -> Layout:
    """Entries of a tensor; the index may be shorter than the tensor in the other dimensions."""
    place = range(x.ndim)[dim]
    fits = [one <= size or at == place for at, (one, size) in enumerate(zip(index.shape, x.shape, strict=True))]
    if not all(fits) or index.dtype != torch.int64 or not index.is_contiguous():
        raise TypeError("not a common case")
    return row_major(index.shape, x.dtype)


def _copy(func: Any, x: Tensor, source: Tensor, *rest: Any) -> Layout:
    if _broadcast([x.shape, source.shape]) != tuple(x.shape):
        raise TypeError("shapes that do not fit")
    return Layout(x.shape, x.stride(), x.dtype)


_SUMS = {_aten.sum.default, _aten.sum.dim_IntList}
_MEANS = {_aten.mean.default, _aten.mean.dim}
_LIKES = (
    _aten.clone.default, _aten._to_copy.default, _aten.ones_like.default, _aten.zeros_like.default,
    _aten.full_like.default, _aten.empty_like.default,
)  # fmt: skip
_NEWS = (
    _aten.new_zeros.default, _aten.new_ones.default, _aten.new_empty.default, _aten.new_full.default,
    _aten.select_backward.default, _aten.slice_backward.default,
)  # fmt: skip
_RULES: dict[Any, Any] = {
    _aten.stack.default: _stack,
    _aten.cat.default: _cat,
    _aten.embedding.default: _embedding,
    _aten.embedding_dense_backward.default: _embedding_backward,
    **dict.fromkeys((_aten.mm.default, _aten.bmm.default, _aten.addmm.default, _aten.baddbmm.default), _product),
    **dict.fromkeys((*_SUMS, *_MEANS, _aten.amax.default, _aten.amin.default), _reduction),
    **dict.fromkeys(_LIKES, _like),
    **dict.fromkeys(_NEWS, _new),
    **dict.fromkeys((_aten.zeros.default, _aten.ones.default, _aten.empty.memory_format), _make),
    **dict.fromkeys((_aten.arange.default, _aten.arange.start, _aten.arange.start_step), _arange),
    **dict.fromkeys((_aten.eye.default, _aten.eye.m), lambda _, *n, **o: _make(_, (n[0], n[-1]), **o)),
    _aten.full.default: _full,
    **dict.fromkeys((_aten._ctc_loss.default, _aten._ctc_loss.Tensor), _ctc_loss),
    **dict.fromkeys((_aten._ctc_loss_backward.default, _aten._ctc_loss_backward.Tensor), _ctc_loss_backward),
    _aten.linalg_lstsq.default: _least_squares,
    **dict.fromkeys((_aten.native_group_norm.default, _aten.native_group_norm_backward.default), _layer),
    _aten.index_put.default: _index_put,
    _aten.gather.default: _gather,
    _aten.copy.default: _copy,
    **dict.fromkeys(RUNNABLE, _by_running),
}

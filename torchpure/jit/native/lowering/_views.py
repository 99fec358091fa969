"""Handlers of views (other shape and strides of the same memory), and of copies such as `cat`."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch.fx import Node

from torchpure.jit.native.ir import Number, UnsupportedError, Value, View, dense_strides, memory_order, reshape_view

from ._matmul import row_major_picture
from ._scope import Scope, fake_value, handles, operation_name


def _accepts_numbers(handler: Any) -> Any:
    """Let a handler of views accept a `Number`: a view of it is a `Number` of another shape."""

    def either(scope: Scope, node: Node, x: Value, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Number):
            out = fake_value(node)
            if isinstance(out, tuple | list):
                return [Number(x.value, tuple(one.shape), x.dtype) for one in out]
            return Number(x.value, tuple(out.shape), x.dtype)
        return handler(scope, node, x, *args, **kwargs)

    return either


def wrap_dim(dim: int, rank: int) -> int:
    return dim % rank if rank else 0


@handles("view", "reshape", "_unsafe_view", "_reshape_alias", "view_copy")
@_accepts_numbers
def _view(scope: Scope, node: Node, x: View, *_: Any) -> View:
    shape = tuple(fake_value(node).shape)
    if fake_value(node).dtype is not x.dtype:
        raise UnsupportedError("views of another dtype")
    found = reshape_view(x, shape)
    if found is None:
        found = reshape_view(row_major_picture(scope, x) or scope.materialize(x, range(len(x.shape))), shape)
    assert found is not None
    return found


@handles("permute", "t", "transpose", "permute_copy")
@_accepts_numbers
def _permute(scope: Scope, node: Node, x: View, *args: Any) -> View:
    name, rank = operation_name(node), len(x.shape)
    if rank < 2:
        return x
    if name == "t":
        order = list(reversed(range(rank)))
    elif name == "transpose":
        order = list(range(rank))
        a, b = wrap_dim(args[0], rank), wrap_dim(args[1], rank)
        order[a], order[b] = order[b], order[a]
    else:
        order = [wrap_dim(dim, rank) for dim in args[0]]
    return View(x.buffer, tuple(x.shape[d] for d in order), tuple(x.strides[d] for d in order), x.offset)


@handles("expand", "expand_copy")
@_accepts_numbers
def _expand(scope: Scope, node: Node, x: View, *_: Any, **__: Any) -> View:
    shape = tuple(fake_value(node).shape)
    lead = len(shape) - len(x.shape)
    strides = [0] * lead + [
        0 if old == 1 and new != 1 else stride
        for old, new, stride in zip(x.shape, shape[lead:], x.strides, strict=True)
    ]
    return View(x.buffer, shape, tuple(strides), x.offset)


@handles("unsqueeze", "unsqueeze_copy")
@_accepts_numbers
def _unsqueeze(scope: Scope, node: Node, x: View, dim: int) -> View:
    dim %= len(x.shape) + 1
    return View(x.buffer, (*x.shape[:dim], 1, *x.shape[dim:]), (*x.strides[:dim], 1, *x.strides[dim:]), x.offset)


@handles("squeeze", "squeeze_copy")
@_accepts_numbers
def _squeeze(scope: Scope, node: Node, x: View, dim: Any = None) -> View:
    dims = range(len(x.shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    squeezed = {wrap_dim(d, len(x.shape)) for d in dims}
    kept = [d for d, size in enumerate(x.shape) if not (d in squeezed and size == 1)]
    return View(x.buffer, tuple(x.shape[d] for d in kept), tuple(x.strides[d] for d in kept), x.offset)


@handles("slice", "slice_copy")
@_accepts_numbers
def _slice(scope: Scope, node: Node, x: View, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> View:
    dim = wrap_dim(dim, len(x.shape))
    size = fake_value(node).shape[dim]
    first = 0 if start is None else min(max(start + x.shape[dim] * (start < 0), 0), x.shape[dim])
    shape, strides = list(x.shape), list(x.strides)
    shape[dim], strides[dim] = size, strides[dim] * step
    return View(x.buffer, tuple(shape), tuple(strides), x.offset + (first * x.strides[dim] if size else 0))


@handles("select", "select_copy")
@_accepts_numbers
def _select(scope: Scope, node: Node, x: View, dim: int, index: int) -> View:
    dim = wrap_dim(dim, len(x.shape))
    if not isinstance(index, int):
        raise UnsupportedError("select at a computed index")
    place = index % x.shape[dim]
    return View(
        x.buffer,
        x.shape[:dim] + x.shape[dim + 1 :],
        x.strides[:dim] + x.strides[dim + 1 :],
        x.offset + place * x.strides[dim],
    )


@handles("alias", "detach", "lift", "lift_fresh", "detach_copy", "alias_copy")
@_accepts_numbers
def _identity(scope: Scope, node: Node, x: View) -> View:
    return x


@handles("split", "split_with_sizes", "unbind", "split_copy", "split_with_sizes_copy", "unbind_copy")
@_accepts_numbers
def _split(scope: Scope, node: Node, x: View, sizes: Any = 0, dim: int = 0) -> list[View]:
    name = operation_name(node)
    if name.startswith("unbind"):
        dim = sizes
    dim = wrap_dim(dim, len(x.shape))
    made, at = [], 0
    for one in fake_value(node):
        made.append(View(x.buffer, tuple(one.shape), _remaining_strides(x, dim, name), x.offset + at * x.strides[dim]))
        at += 1 if name.startswith("unbind") else one.shape[dim]
    return made


def _remaining_strides(x: View, dim: int, name: str) -> tuple[int, ...]:
    return x.strides[:dim] + x.strides[dim + 1 :] if name.startswith("unbind") else x.strides


@handles("diagonal", "diagonal_copy")
@_accepts_numbers
def diagonal(scope: Scope, node: Node, x: View, offset: int = 0, dim1: int = 0, dim2: int = 1) -> View:
    rank = len(x.shape)
    a, b = wrap_dim(dim1, rank), wrap_dim(dim2, rank)
    start = offset * x.strides[b] if offset >= 0 else -offset * x.strides[a]
    rest = [d for d in range(rank) if d not in (a, b)]
    size = max(min(x.shape[a] + min(offset, 0), x.shape[b] - max(offset, 0)), 0)
    strides = (*(x.strides[d] for d in rest), x.strides[a] + x.strides[b])
    return View(x.buffer, (*(x.shape[d] for d in rest), size), strides, x.offset + (start if size else 0))


@handles("unfold", "unfold_copy")
@_accepts_numbers
def _unfold(scope: Scope, node: Node, x: View, dim: int, size: int, step: int) -> View:
    shape = tuple(fake_value(node).shape)
    if not x.shape:
        return View(x.buffer, shape, (1,), x.offset)
    dim = wrap_dim(dim, len(x.shape))
    strides = (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :], x.strides[dim])
    return View(x.buffer, shape, strides, x.offset)


@handles("flip", "rev")
def _flip(scope: Scope, node: Node, x: Value, dims: Sequence[int]) -> Value:
    if isinstance(x, Number) or not x.shape:
        return x
    strides, offset = list(x.strides), x.offset
    for dim in dims:
        d = wrap_dim(dim, len(x.shape))
        offset += (x.shape[d] - 1) * strides[d] if x.shape[d] else 0
        strides[d] = -strides[d]
    return View(x.buffer, x.shape, tuple(strides), offset)


@handles("stack")
def _stack(scope: Scope, node: Node, parts: Sequence[Value], dim: int = 0) -> View:
    out = fake_value(node)
    dim %= out.ndim
    made = scope.empty(out.shape, out.dtype)
    made.buffer.disjoint_writes = True
    for at, part in enumerate(parts):
        row = narrow(made, dim, at, 1)
        scope.copy(part, View(row.buffer, tuple(part.shape), row.strides[:dim] + row.strides[dim + 1 :], row.offset))
    return made


@handles("as_strided", "as_strided_copy")
def _as_strided(scope: Scope, node: Node, x: Value, shape: Any, strides: Any, offset: int | None = None) -> View:
    return as_strided_rows(scope.row_major(x), node, shape, strides, offset)


def as_strided_rows(rows: View, node: Node, shape: Any, strides: Any, offset: int | None) -> View:
    """View row-major memory with other strides, as the traced program did.

    Raises:
        UnsupportedError: the traced memory was not row-major.
    """
    like: Any = node.all_input_nodes[0].meta["val"]
    if not like.is_contiguous() or like.storage_offset() or like.untyped_storage().nbytes() > like.nbytes:
        raise UnsupportedError("strides of memory that is not row-major")
    return View(rows.buffer, tuple(shape), tuple(strides), rows.offset + (offset or 0))


@handles("cat")
def _cat(scope: Scope, node: Node, parts: Sequence[Value], dim: int = 0) -> View:
    out = fake_value(node)
    dim = wrap_dim(dim, out.ndim)
    made = scope.empty(out.shape, out.dtype)
    made.buffer.disjoint_writes = True
    at = 0
    for part in parts:
        if len(part.shape) != out.ndim:  # torch allows an empty vector among the tensors
            continue
        scope.copy(part, narrow(made, dim, at, part.shape[dim]))
        at += part.shape[dim]
    return made


@handles("roll")
def _roll(scope: Scope, node: Node, x: Value, shifts: Any, dims: Any = ()) -> Value:
    if isinstance(x, Number) or 0 in x.shape:
        return x
    shifts, dims = ([part] if isinstance(part, int) else list(part) for part in (shifts, dims))
    if not dims:  # the elements of a tensor in a row
        rows = reshape_view(scope.materialize(x, range(len(x.shape))), (prod(x.shape),))
        assert rows is not None  # dense memory is a row
        made = _rolled(scope, rows, [(0, shifts[0])])
        return View(made.buffer, x.shape, dense_strides(x.shape), made.offset)
    return _rolled(scope, x, [(wrap_dim(dim, len(x.shape)), shift) for dim, shift in zip(dims, shifts, strict=True)])


def _rolled(scope: Scope, x: View, moves: Sequence[tuple[int, int]]) -> View:
    """Copy each part of a tensor, which shifts along dimensions cut into two parts each."""
    made = scope.empty(x.shape, x.dtype, memory_order(x))
    made.buffer.disjoint_writes = True
    parts = [(x, made)]
    for dim in dict.fromkeys(dim for dim, _ in moves):
        size = x.shape[dim]
        start = sum(shift for other, shift in moves if other == dim) % size
        cuts = [(0, start, size - start), *([(size - start, 0, start)] if start else [])]  # from, to, size
        parts = [
            (narrow(old, dim, first, count), narrow(new, dim, place, count))
            for old, new in parts
            for first, place, count in cuts
        ]
    for old, new in parts:
        scope.copy(old, new)
    return made


def narrow(view: View, dim: int, start: int, size: int, step: int = 1) -> View:
    """View a range of one dimension."""
    shape, strides = list(view.shape), list(view.strides)
    shape[dim], strides[dim] = size, strides[dim] * step
    return View(view.buffer, tuple(shape), tuple(strides), view.offset + start * view.strides[dim])


@handles("constant_pad_nd")
def _pad(scope: Scope, node: Node, x: Value, pad: Sequence[int], value: Any = 0) -> View:
    out = fake_value(node)
    made = scope.empty(out.shape, out.dtype)
    scope.copy(Number(value, tuple(out.shape), out.dtype), made)
    inside, source = made, scope.materialize(x)
    for i in range(len(pad) // 2):
        dim = out.ndim - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        source = narrow(source, dim, max(-before, 0), source.shape[dim] + min(before, 0) + min(after, 0))
        inside = narrow(inside, dim, max(before, 0), source.shape[dim])
    scope.copy(source, inside)
    return made


@handles("repeat")
def _repeat(scope: Scope, node: Node, x: Value, repeats: Sequence[int]) -> Value:
    out = fake_value(node)
    if isinstance(x, Number):
        return Number(x.value, tuple(out.shape), out.dtype)
    lead = out.ndim - len(x.shape)
    shape = (1,) * lead + x.shape
    full = [n for r, s in zip(repeats, shape, strict=True) for n in (r, s)]
    made = scope.empty(out.shape, out.dtype, range(out.ndim))
    inside = reshape_view(made, tuple(full))
    assert inside is not None
    strides = [s for stride in (0,) * lead + x.strides for s in (0, stride)]
    scope.copy(View(x.buffer, tuple(full), tuple(strides), x.offset), inside)
    return made

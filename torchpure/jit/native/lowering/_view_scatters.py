"""Handlers of view scatters: copy a tensor, then overwrite the part that a view shows. Also backwards of views."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from torchpure.jit.native.ir import Number, Value, View

from ._scope import Scope, fake_value, handles
from ._views import as_strided_rows, diagonal, narrow, wrap_dim


@handles("eye")
def _eye(scope: Scope, node: Node, *_: Any, **__: Any) -> View:
    zero = Number(0, tuple(fake_value(node).shape), fake_value(node).dtype)
    return _diagonal_scatter(scope, node, zero, Number(1, (min(zero.shape),), zero.dtype))


def _copy_and_overwrite(scope: Scope, node: Node, x: Value, src: Value, place: Callable[[View], View]) -> View:
    """Copy a value, then overwrite a part of the copy."""
    out = fake_value(node)
    made = scope.empty(out.shape, out.dtype)
    scope.copy(x, made)
    scope.copy(src, place(made))
    return made


@handles("slice_scatter")
def _slice_scatter(scope: Scope, node: Node, x: Value, src: Value, *where: Any, **named: Any) -> View:
    return _copy_and_overwrite(scope, node, x, src, lambda made: _slice_of(made, src, *where, **named))


def _slice_of(made: View, src: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> View:
    dim = wrap_dim(dim, len(made.shape))
    size, count = made.shape[dim], src.shape[dim]
    first = 0 if start is None else min(max(start + size * (start < 0), 0), size)
    return narrow(made, dim, first if count else 0, count, step)


@handles("select_scatter")
def _select_scatter(scope: Scope, node: Node, x: Value, src: Value, dim: int, index: int) -> View:
    def place(made: View) -> View:
        d = wrap_dim(dim, len(made.shape))
        row = narrow(made, d, index % made.shape[d], 1)
        return View(row.buffer, tuple(src.shape), row.strides[:d] + row.strides[d + 1 :], row.offset)

    return _copy_and_overwrite(scope, node, x, src, place)


@handles("as_strided_scatter")
def _as_strided_scatter(
    scope: Scope, node: Node, x: Value, src: Value, shape: Any, strides: Any, offset: int | None = None
) -> View:
    made = scope.materialize(x, range(len(x.shape)))
    scope.copy(src, as_strided_rows(made, node, shape, strides, offset))
    return made


@handles("diagonal_scatter")
def _diagonal_scatter(scope: Scope, node: Node, x: Value, src: Value, *where: Any, **named: Any) -> View:
    return _copy_and_overwrite(scope, node, x, src, lambda made: diagonal(scope, node, made, *where, **named))


def _backward(scatter: Any) -> Any:
    """Turn a scatter handler into the backward of a view: it scatters into zeros."""

    def handler(scope: Scope, node: Node, gradient: Value, sizes: Sequence[int], *where: Any) -> View:
        return scatter(scope, node, Number(0, tuple(sizes), fake_value(node).dtype), gradient, *where)

    return handler


handles("slice_backward")(_backward(_slice_scatter))


handles("select_backward")(_backward(_select_scatter))


handles("diagonal_backward")(_backward(_diagonal_scatter))

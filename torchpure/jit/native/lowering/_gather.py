"""Handlers of indexing and gathers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from torchpure.jit.native.ir import Builder, UnsupportedError, Value, View

from ._scope import Scope, cast, handles, meta, operation
from ._views import _dim


@handles("index", "index_select", "gather", "embedding")
def _index(scope: Scope, node: Node, *args: Any) -> View:
    name = operation(node)
    if name == "embedding":
        return _taken(scope, node, args[0], [args[1]], wraps=False)
    if name == "index":
        return _taken(scope, node, args[0], args[1], wraps=True)
    x, dim, places = args[:3]
    if not x.shape:
        raise UnsupportedError(f"{name} of a number")
    if name == "index_select":
        return _taken(scope, node, x, [None] * _dim(dim, len(x.shape)) + [places], wraps=False)
    return _gathered(scope, node, x, _dim(dim, len(x.shape)), places)


def _taken(scope: Scope, node: Node, x: Value, indices: Sequence[Any], *, wraps: bool) -> View:
    out, x = meta(node), scope.materialized(x)
    used = [d for d, index in enumerate(indices) if index is not None]
    if any(indices[d].dtype is torch.bool for d in used):
        raise UnsupportedError("indices that are masks")
    adjacent = used == list(range(used[0], used[-1] + 1))
    rank = max(len(indices[d].shape) for d in used)
    at = used[0] if adjacent else 0  # where the dimensions of the indices are in the result
    build = scope.builder(out.shape)
    places = []
    for d in used:
        index = scope.materialized(indices[d])
        tail = len(out.shape) - at - rank
        loaded = build.load(_padded(index, tail), out.shape)
        place = cast(build, loaded, index.dtype, torch.int64)
        places.append((place if wraps else _row(build, place, x.shape[d]), x.shape[d], x.strides[d]))
    rest = [x.strides[d] for d in range(len(x.shape)) if d not in used]
    strides = [*rest[:at], *[0] * rank, *rest[at:]]
    name = build.load_at(x, places, strides)
    made = scope.empty(out.shape, out.dtype)
    build.store(made, name)
    scope.add(build)
    return made


def _row(build: Builder, index: str, size: int) -> str:
    """Let a negative index be out of range: it would count from the end."""
    return build.compute(torch.int64, f"{{0}} < 0 ? {size} : {{0}}", index)


def _padded(view: View, tail: int) -> View:
    return View(view.buffer, view.shape + (1,) * tail, view.strides + (0,) * tail, view.offset)


def _gathered(scope: Scope, node: Node, x: Value, dim: int, places: Value) -> View:
    out, x = meta(node), scope.materialized(x)
    build = scope.builder(out.shape)
    if not out.ndim:
        raise UnsupportedError("gather of a number")
    index = _row(build, cast(build, build.load(places, out.shape), places.dtype, torch.int64), x.shape[dim])
    strides = [0 if d == dim else stride for d, stride in enumerate(x.strides)]
    name = build.load_at(x, [(index, x.shape[dim], x.strides[dim])], strides)
    made = scope.empty(out.shape, out.dtype)
    build.store(made, name)
    scope.add(build)
    return made

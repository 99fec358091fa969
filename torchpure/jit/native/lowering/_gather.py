"""Handlers of indexing and gathers: reads at computed indices."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from torchpure.jit.native.ir import KernelBuilder, UnsupportedError, Value, View

from ._scope import Scope, cast, fake_value, handles, operation_name
from ._views import wrap_dim


@handles("index", "index_select", "gather", "embedding")
def _index(scope: Scope, node: Node, *args: Any) -> View:
    name = operation_name(node)
    if name == "embedding":
        return _gather_at(scope, node, args[0], [args[1]], wraps=False)
    if name == "index":
        return _gather_at(scope, node, args[0], args[1], wraps=True)
    x, dim, indices = args[:3]
    if not x.shape:
        return scope.call_torch(node)
    if name == "index_select":
        return _gather_at(scope, node, x, [None] * wrap_dim(dim, len(x.shape)) + [indices], wraps=False)
    return _gather_along(scope, node, x, wrap_dim(dim, len(x.shape)), indices)


def _gather_at(scope: Scope, node: Node, x: Value, indices: Sequence[Any], *, wraps: bool) -> View:
    out, x = fake_value(node), scope.materialize(x)
    used = [d for d, index in enumerate(indices) if index is not None]
    if any(indices[d].dtype is torch.bool for d in used):
        raise UnsupportedError("indices that are masks")
    adjacent = used == list(range(used[0], used[-1] + 1))
    rank = max(len(indices[d].shape) for d in used)
    position = used[0] if adjacent else 0  # position of the index dimensions in the result
    build = scope.new_kernel(out.shape)
    index_terms = []
    for d in used:
        index = scope.materialize(indices[d])
        tail = len(out.shape) - position - rank
        loaded = build.load(_append_unit_dims(index, tail), out.shape)
        index_value = cast(build, loaded, index.dtype, torch.int64)
        index_terms.append(
            (index_value if wraps else _reject_negative(build, index_value, x.shape[d]), x.shape[d], x.strides[d])
        )
    rest = [x.strides[d] for d in range(len(x.shape)) if d not in used]
    strides = [*rest[:position], *[0] * rank, *rest[position:]]
    name = build.indirect_load(x, index_terms, strides)
    made = scope.empty(out.shape, out.dtype)
    build.store(made, name)
    scope.append_kernel(build)
    return made


def _reject_negative(build: KernelBuilder, index: str, size: int) -> str:
    """Map a negative index to `size`, which is out of range. Otherwise it would count from the end."""
    return build.compute(torch.int64, f"{{0}} < 0 ? {size} : {{0}}", index)


def _append_unit_dims(view: View, tail: int) -> View:
    return View(view.buffer, view.shape + (1,) * tail, view.strides + (0,) * tail, view.offset)


def _gather_along(scope: Scope, node: Node, x: Value, dim: int, indices: Value) -> View:
    out, x = fake_value(node), scope.materialize(x)
    build = scope.new_kernel(out.shape)
    if not out.ndim:
        return scope.call_torch(node)
    index = _reject_negative(
        build, cast(build, build.load(indices, out.shape), indices.dtype, torch.int64), x.shape[dim]
    )
    strides = [0 if d == dim else stride for d, stride in enumerate(x.strides)]
    name = build.indirect_load(x, [(index, x.shape[dim], x.strides[dim])], strides)
    made = scope.empty(out.shape, out.dtype)
    build.store(made, name)
    scope.append_kernel(build)
    return made

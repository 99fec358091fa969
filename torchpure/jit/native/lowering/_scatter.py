"""Handlers of scatters: writes at computed indices, one element after another."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from torchpure.jit.native.ir import Number, Opaque, Value, View

from ._pointwise import as_value
from ._scope import Scope, fake_value, handles

_UPDATES = {None: "=", "sum": "+=", "add": "+=", "prod": "*=", "multiply": "*="}


@handles("scatter", "scatter_add", "scatter_reduce")
def _scatter(
    scope: Scope, node: Node, x: Value, dim: int, index: Value, src: Any, reduce: Any = None, include_self: bool = True
) -> View:
    out = fake_value(node)
    if "scatter_add" in str(node.target):
        reduce = "sum"
    if reduce not in _UPDATES or not include_self or not out.ndim:
        return scope.call_torch(node)
    dim %= out.ndim
    made = _copy_of(scope, x, out)
    indices = scope.materialize(index)
    values = as_value(src, out.dtype)
    values = scope.materialize(Number(values.value, indices.shape, out.dtype) if isinstance(values, Number) else values)
    loops = _loop_heads(indices.shape)
    address = _address(made, ["0" if d == dim else f"i{d}" for d in range(out.ndim)])
    variables = [f"i{d}" for d in range(out.ndim)]
    text = (
        f"{loops}{{ int64_t j = op_row({indices.buffer.slot}[{_address(indices, variables)}], {out.shape[dim]}, bad);"
        f" {made.buffer.slot}[{address} + j * ({made.strides[dim]})] {_UPDATES[reduce]}"
        f" {values.buffer.slot}[{_address(values, variables)}]; }}"
    )
    scope.items.append(Opaque(text, (indices.buffer, values.buffer, made.buffer), (made.buffer,)))
    return made


@handles("index_put", "_unsafe_index_put")
def _index_put(
    scope: Scope, node: Node, x: Value, indices: Sequence[Any], src: Value, accumulate: bool = False
) -> View:
    out = fake_value(node)
    used = [d for d, index in enumerate(indices) if index is not None]
    if any(indices[d].dtype is torch.bool for d in used):
        return scope.call_torch(node)
    adjacent = used == list(range(used[0], used[-1] + 1))
    shape = torch.broadcast_shapes(*(indices[d].shape for d in used))
    position = used[0] if adjacent else 0
    rest = [d for d in range(out.ndim) if d not in used]
    full = [*(out.shape[d] for d in rest[:position]), *shape, *(out.shape[d] for d in rest[position:])]
    made, values = _copy_of(scope, x, out), scope.materialize(src)
    terms = []
    for number, d in enumerate(rest):
        variable = f"i{number}" if number < position else f"i{number + len(shape)}"
        terms.append(f"{variable} * ({made.strides[d]})")
    reads = [values.buffer, made.buffer]
    for d in used:
        index = scope.materialize(indices[d])
        reads.append(index.buffer)
        index_address = _address(index, _trailing_variables([f"i{position + i}" for i in range(len(shape))], index))
        terms.append(f"op_place({index.buffer.slot}[{index_address}], {out.shape[d]}, bad) * ({made.strides[d]})")
    source = _address(values, _trailing_variables([f"i{i}" for i in range(len(full))], values))
    text = (
        f"{_loop_heads(full)}{{ {made.buffer.slot}[{made.offset} + {' + '.join(terms)}] {'+=' if accumulate else '='}"
        f" {values.buffer.slot}[{source}]; }}"
    )
    scope.items.append(Opaque(text, tuple(reads), (made.buffer,)))
    return made


def _copy_of(scope: Scope, x: Value, out: Any) -> View:
    made = scope.empty(out.shape, out.dtype)
    scope.copy(x, made)
    return made


def _loop_heads(shape: Sequence[int]) -> str:
    return "".join(f"for (int64_t i{d} = 0; i{d} < {size}; i{d}++) " for d, size in enumerate(shape))


def _trailing_variables(variables: list[str], view: View) -> list[str]:
    """Match the last loop variables with the dimensions of a view. Dimensions of size 1 get index 0."""
    mine = variables[len(variables) - len(view.shape) :]
    return ["0" if size == 1 else name for name, size in zip(mine, view.shape, strict=True)]


def _address(view: View, variables: Sequence[str]) -> str:
    terms = [f"{v} * ({s})" for v, s in zip(variables, view.strides, strict=True) if v != "0"]
    return " + ".join([str(view.offset), *terms])

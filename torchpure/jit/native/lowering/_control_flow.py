"""Handlers of the control flow primitives: scan, while, switch and callback."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from torchpure.jit.native.ir import Number, UnsupportedError, Value, View, dense_strides, longest_last
from torchpure.transforms.calls import CHECK

from ._pointwise import as_value
from ._reductions import reduce_dims
from ._regions import Branches, Callback, CarrySlot, Loop, LoopSlice
from ._scope import PRIMITIVES, Scope, fake_value

_MAX_RELAYOUT = 1 << 18  # elements; larger constants of a loop keep their layout


def _child_scope(scope: Scope, module: Any) -> Scope:
    if not isinstance(module, GraphModule):
        raise UnsupportedError("a loop whose body is not traced")
    return Scope(scope.state, module)


def _used_outputs(node: Node, count: int) -> list[bool]:
    """Tell, for each output of a node, whether it is read."""
    used = [False] * count
    for user in node.users:
        if user.op == "call_function" and getattr(user.target, "__name__", "") == "getitem":
            used[int(user.args[1])] = bool(user.users)  # pyrefly: ignore[bad-argument-type]
        else:
            return [True] * count
    return used


def _relayout(scope: Scope, value: Value) -> Value:
    """Copy a constant of a loop so that its longest dimension is innermost in memory."""
    if isinstance(value, Number) or value.buffer.temporary or not value.shape or value.buffer.size > _MAX_RELAYOUT:
        return value
    order = longest_last(value.shape)
    innermost = value.strides[order[-1]]
    return value if innermost in {0, 1} else scope.materialize(value, order)


def _add_carry(loop: Loop, initial: Sequence[Value]) -> None:
    for value in initial:
        order = longest_last(value.shape)
        strides = dense_strides(value.shape, order)
        now, after = (
            View(loop.setup.buffer(value.dtype, max(prod(value.shape), 1)), tuple(value.shape), strides) for _ in "01"
        )
        loop.carried.append(CarrySlot(now, after))
        loop.setup.copy(value, now)


def _final_carry(scope: Scope, loop: Loop, used: Sequence[bool]) -> list[View]:
    """Copy the final carry to buffers that later items can read."""
    found = []
    for pair, wanted in zip(loop.carried, used, strict=True):
        copy = View(scope.buffer(pair.now.dtype, max(prod(pair.now.shape), 1)), pair.now.shape, pair.now.strides)
        if wanted:
            loop.teardown.copy(pair.now, copy)
        found.append(copy)
    return found


def _scan(
    scope: Scope,
    node: Node,
    body: Any,
    carry: Sequence[Any],
    xs: Sequence[Any],
    consts: Sequence[Any],
    length: int,
    reverse: bool,
) -> list[View]:
    body_scope = _child_scope(scope, body)
    consts = [_relayout(scope, value) for value in _tensors(consts)]
    loop = Loop(body_scope, [], [], length, reverse, _child_scope(scope, body), _child_scope(scope, body))
    _add_carry(loop, _tensors(carry))
    outs = fake_value(node)
    used = _used_outputs(node, len(outs))
    carry_views = [pair.now for pair in loop.carried]
    sliced = [_loop_slice(loop, body_scope, value, read=True) for value in _tensors(xs)]
    results = body_scope.lower([*carry_views, *sliced, *consts])
    count = len(loop.carried)
    for pair, result in zip(loop.carried, results[:count], strict=True):
        body_scope.copy(result, pair.next)
    stacked = []
    for result, out, wanted in zip(results[count:], outs[count:], used[count:], strict=True):
        shape = tuple(out.shape)
        strides = dense_strides(shape, [0, *(d + 1 for d in longest_last(shape[1:]))])
        output = View(scope.buffer(out.dtype, max(prod(shape), 1)), shape, strides)
        if wanted:
            body_scope.copy(result, _loop_slice(loop, body_scope, output, read=False))
        stacked.append(output)
    finals = _final_carry(scope, loop, used[:count])
    scope.items.append(loop)
    return [*finals, *stacked]


def _tensors(values: Sequence[Any]) -> list[Value]:
    if not all(isinstance(value, View | Number) for value in values):
        raise UnsupportedError("a loop over other things than tensors")
    return list(values)


def _loop_slice(loop: Loop, body_scope: Scope, value: Any, read: bool) -> Any:
    if isinstance(value, Number):
        return Number(value.value, tuple(value.shape[1:]), value.dtype)
    part = body_scope.buffer(value.dtype, value.buffer.size, temporary=False)
    loop.slices.append(LoopSlice(part, value, value.strides[0]))
    if read:
        loop.outside_reads.add(value.buffer)
    return View(part, value.shape[1:], value.strides[1:])


def _while(scope: Scope, node: Node, cond: Any, body: Any, carry: Sequence[Any], consts: Sequence[Any]) -> list[View]:
    body_scope, condition_scope = _child_scope(scope, body), _child_scope(scope, cond)
    consts = [_relayout(scope, value) for value in _tensors(consts)]
    loop = Loop(body_scope, [], [], None, False, _child_scope(scope, body), _child_scope(scope, body))
    _add_carry(loop, _tensors(carry))
    carry_views = [pair.now for pair in loop.carried]
    (condition,) = condition_scope.lower([*carry_views, *consts])
    loop.condition = (condition_scope, condition_scope.materialize(condition))
    loop.outside_reads.add(loop.condition[1].buffer)
    for pair, result in zip(loop.carried, body_scope.lower([*carry_views, *consts]), strict=True):
        body_scope.copy(result, pair.next)
    finals = _final_carry(scope, loop, [True] * len(carry_views))
    scope.items.append(loop)
    return finals


def _switch(scope: Scope, node: Node, index: Any, branches: Sequence[Any], operands: Sequence[Any]) -> list[View]:
    outs = fake_value(node)
    output_views = [View(scope.buffer(o.dtype, max(o.numel(), 1)), *_layout(o.shape)) for o in outs]
    scopes = []
    for branch in branches:
        body_scope = _child_scope(scope, branch)
        for result, target in zip(body_scope.lower(_tensors(operands)), output_views, strict=True):
            body_scope.copy(result, target)
        scopes.append(body_scope)
    index_view = scope.materialize(as_value(index, torch.int64))
    scope.items.append(Branches(index_view, scopes))
    return output_views


def _layout(shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(shape), dense_strides(shape, longest_last(shape))


def _callback(scope: Scope, node: Node, fn: Any, operands: Sequence[Any], token: str) -> tuple[()]:
    if token == "keep":  # noqa: S105 the callback only marks its operand as used
        return ()
    views = [scope.materialize(value) for value in _tensors(operands)]
    skip_if = None
    if token == CHECK:
        like = torch.empty((), dtype=torch.bool, device="meta")
        skip_if = reduce_dims(scope, "all", views[0], range(len(views[0].shape)), like, torch.bool)
    else:
        scope.state.may_reenter = True
    scope.items.append(Callback(len(scope.state.callbacks), views, skip_if))
    scope.state.callbacks.append((fn, views))
    return ()


PRIMITIVES.update({
    "torchpure_scan": _scan,
    "torchpure_while": _while,
    "torchpure_switch": _switch,
    "torchpure_callback": _callback,
})  # fmt: skip

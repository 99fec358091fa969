"""Handlers of the primitives of control flow: loops of C++ around a scope of their own."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from torchpure.jit.native.ir import Number, UnsupportedError, Value, View, dense_strides, longest_last
from torchpure.transforms.calls import CHECK

from ._reductions import folded
from ._regions import Branches, Callback, Carried, Loop, Slice
from ._scope import PRIMITIVES, Scope, as_value, meta

_RELAID = 1 << 18  # elements; larger constants of a loop are read as they lie


def _child(scope: Scope, module: Any) -> Scope:
    if not isinstance(module, GraphModule):
        raise UnsupportedError("a loop whose body is not traced")
    return Scope(scope.program, module, scope)


def _used(node: Node, count: int) -> list[bool]:
    """Tell which outputs of a node are read."""
    used = [False] * count
    for user in node.users:
        if user.op == "call_function" and getattr(user.target, "__name__", "") == "getitem":
            used[int(user.args[1])] = bool(user.users)  # pyrefly: ignore[bad-argument-type]
        else:
            return [True] * count
    return used


def _relaid(scope: Scope, value: Value) -> Value:
    """Lay a constant of a loop out so that its longest dimension is innermost."""
    if isinstance(value, Number) or value.buffer.temporary or not value.shape or value.buffer.size > _RELAID:
        return value
    order = longest_last(value.shape)
    innermost = value.strides[order[-1]]
    return value if innermost in {0, 1} else scope.materialized(value, order)


def _carry(loop: Loop, initial: Sequence[Value]) -> None:
    for value in initial:
        order = longest_last(value.shape)
        strides = dense_strides(value.shape, order)
        now, after = (
            View(loop.head.buffer(value.dtype, max(prod(value.shape), 1)), tuple(value.shape), strides) for _ in "01"
        )
        loop.carried.append(Carried(now, after))
        loop.head.copy(value, now)


def _results(scope: Scope, loop: Loop, used: Sequence[bool]) -> list[View]:
    """Copy what is carried at the end to where others can read it."""
    found = []
    for pair, wanted in zip(loop.carried, used, strict=True):
        made = View(scope.buffer(pair.now.dtype, max(prod(pair.now.shape), 1)), pair.now.shape, pair.now.strides)
        if wanted:
            loop.tail.copy(pair.now, made)
        found.append(made)
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
    inside = _child(scope, body)
    consts = [_relaid(scope, value) for value in _tensors(consts)]
    loop = Loop(inside, [], [], length, reverse, _child(scope, body), _child(scope, body))
    _carry(loop, _tensors(carry))
    outs = meta(node)
    used = _used(node, len(outs))
    given = [pair.now for pair in loop.carried]
    sliced = [_slice(loop, inside, value, read=True) for value in _tensors(xs)]
    results = inside.run([*given, *sliced, *consts])
    count = len(loop.carried)
    for pair, result in zip(loop.carried, results[:count], strict=True):
        inside.copy(result, pair.next)
    stacked = []
    for result, out, wanted in zip(results[count:], outs[count:], used[count:], strict=True):
        shape = tuple(out.shape)
        strides = dense_strides(shape, [0, *(d + 1 for d in longest_last(shape[1:]))])
        made = View(scope.buffer(out.dtype, max(prod(shape), 1)), shape, strides)
        if wanted:
            inside.copy(result, _slice(loop, inside, made, read=False))
        stacked.append(made)
    finals = _results(scope, loop, used[:count])
    scope.items.append(loop)
    return [*finals, *stacked]


def _tensors(values: Sequence[Any]) -> list[Value]:
    if not all(isinstance(value, View | Number) for value in values):
        raise UnsupportedError("a loop over other things than tensors")
    return list(values)


def _slice(loop: Loop, inside: Scope, value: Any, read: bool) -> Any:
    if isinstance(value, Number):
        return Number(value.value, tuple(value.shape[1:]), value.dtype)
    part = inside.buffer(value.dtype, value.buffer.size, temporary=False)
    loop.slices.append(Slice(part, value, value.strides[0]))
    if read:
        loop.extra.add(value.buffer)
    return View(part, value.shape[1:], value.strides[1:])


def _while(scope: Scope, node: Node, cond: Any, body: Any, carry: Sequence[Any], consts: Sequence[Any]) -> list[View]:
    inside, test = _child(scope, body), _child(scope, cond)
    consts = [_relaid(scope, value) for value in _tensors(consts)]
    loop = Loop(inside, [], [], None, False, _child(scope, body), _child(scope, body))
    _carry(loop, _tensors(carry))
    given = [pair.now for pair in loop.carried]
    (condition,) = test.run([*given, *consts])
    loop.condition = (test, test.materialized(condition))
    loop.extra.add(loop.condition[1].buffer)
    for pair, result in zip(loop.carried, inside.run([*given, *consts]), strict=True):
        inside.copy(result, pair.next)
    finals = _results(scope, loop, [True] * len(given))
    scope.items.append(loop)
    return finals


def _switch(scope: Scope, node: Node, index: Any, branches: Sequence[Any], operands: Sequence[Any]) -> list[View]:
    outs = meta(node)
    made = [View(scope.buffer(o.dtype, max(o.numel(), 1)), *_laid(o.shape)) for o in outs]
    scopes = []
    for branch in branches:
        inside = _child(scope, branch)
        for result, target in zip(inside.run(_tensors(operands)), made, strict=True):
            inside.copy(result, target)
        scopes.append(inside)
    where = scope.materialized(as_value(index, torch.int64))
    scope.items.append(Branches(where, scopes))
    return made


def _laid(shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(shape), dense_strides(shape, longest_last(shape))


def _callback(scope: Scope, node: Node, fn: Any, operands: Sequence[Any], token: str) -> tuple[()]:
    if token == "keep":  # noqa: S105 it only marked its operand as used
        return ()
    views = [scope.materialized(value) for value in _tensors(operands)]
    unless = None
    if token == CHECK:
        like = torch.empty((), dtype=torch.bool, device="meta")
        unless = folded(scope, "all", views[0], range(len(views[0].shape)), like, torch.bool)
    else:
        scope.program.reenters = True
    scope.items.append(Callback(len(scope.program.callbacks), views, unless))
    scope.program.callbacks.append((fn, views))
    return ()


PRIMITIVES.update({
    "torchpure_scan": _scan,
    "torchpure_while": _while,
    "torchpure_switch": _switch,
    "torchpure_callback": _callback,
})  # fmt: skip

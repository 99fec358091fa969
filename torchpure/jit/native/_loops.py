"""Handlers of the primitives of control flow: loops of C++ around a scope of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from torchpure.transforms._primitives import CHECK

from ._lower import PRIMITIVES, Scope, as_value, meta
from ._reductions import folded
from ._values import Buffer, Number, UnsupportedError, Value, View, dense_strides, longest_last

_RELAID = 1 << 18  # elements; larger constants of a loop are read as they lie


@dataclass(eq=False, slots=True)
class Carried:
    """A value that a loop carries: where a turn reads it and where it writes the next one; they swap."""

    now: View
    next: View


@dataclass(eq=False, slots=True)
class Slice:
    """A pointer that moves with the turns of a loop."""

    buffer: Buffer  # what the body calls it
    base: View
    step: int


@dataclass(eq=False, slots=True)
class Loop:
    """Turns of a body: `length` of them, or while a condition holds."""

    scope: Scope
    carried: list[Carried]
    slices: list[Slice]
    length: int | None
    reverse: bool
    head: Scope  # before the first turn
    tail: Scope  # after the last
    condition: tuple[Scope, View] | None = None
    extra: set[Buffer] = field(default_factory=set)

    def scopes(self) -> list[Scope]:
        """List the scopes, each of which has temporaries."""
        return [self.head, self.scope, self.tail, *([self.condition[0]] if self.condition else [])]

    def kept(self, scope: Scope) -> set[Buffer]:
        """Return which temporaries of one of the scopes the others read."""
        carried = {view.buffer for pair in self.carried for view in (pair.now, pair.next)}
        return carried | ({self.condition[1].buffer} if self.condition and scope is self.condition[0] else set())

    def own(self) -> set[Buffer]:
        """Return the buffers of which others know nothing."""
        found = {view.buffer for pair in self.carried for view in (pair.now, pair.next)}
        return found | {part.buffer for part in self.slices} | {b for s in self.scopes() for b in s.temporaries}

    def reads(self) -> set[Buffer]:
        """Return what is read, from outside."""
        found = {buffer for scope in self.scopes() for item in scope.items for buffer in item.reads()} | self.extra
        return found - self.own()

    def writes(self) -> set[Buffer]:
        """Return what is written, for others."""
        found = {buffer for scope in self.scopes() for item in scope.items for buffer in item.writes()}
        return (found - self.own()) | {part.base.buffer for part in self.slices if part.base.buffer not in self.extra}


@dataclass(eq=False, slots=True)
class Branches:
    """One of several scopes, by an index."""

    index: View
    branches: list[Scope]

    def scopes(self) -> list[Scope]:
        """List the scopes, each of which has temporaries."""
        return self.branches

    def kept(self, scope: Scope) -> set[Buffer]:
        """Return which temporaries of one of the scopes the others read."""
        return set()

    def reads(self) -> set[Buffer]:
        """Return what is read, from outside."""
        found = {buffer for scope in self.branches for item in scope.items for buffer in item.reads()}
        return (found | {self.index.buffer}) - {b for s in self.branches for b in s.temporaries}

    def writes(self) -> set[Buffer]:
        """Return what is written, for others."""
        found = {buffer for scope in self.branches for item in scope.items for buffer in item.writes()}
        return found - {b for s in self.branches for b in s.temporaries}


@dataclass(eq=False, slots=True)
class Callback:
    """A call of Python."""

    number: int
    operands: list[View]
    unless: View | None = None  # a bool: there is no call where it holds

    def reads(self) -> set[Buffer]:
        """Return what is read."""
        return {view.buffer for view in (*self.operands, *([self.unless] if self.unless else []))}

    def writes(self) -> set[Buffer]:
        """Return what is written."""
        return set()


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

"""Loops, branches and callbacks as single operations of a traced program.

Outside of a tracer they are Python loops. While make_fx traces, each is one node whose functions are traced to modules
of their own; while only shapes are asked for, each function runs once.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx import GraphModule
from torch.fx.node import has_side_effect

from torchpure import tree
from torchpure._torch import (
    AutoDispatchBelowAutograd,
    DispatchKey,
    FakeTensor,
    FakeTensorMode,
    HigherOrderOperator,
    ProxyTorchDispatchMode,
    TorchDispatchModeKey,
    disable_current_modes,
    disable_proxy_modes_tracing,
    get_dispatch_mode,
    get_proxy_mode,
    reenter_make_fx,
    track_tensor_tree,
)
from torchpure.transforms.engine import TensorIndexing, functorch

Flat = Callable[..., Sequence[Tensor]]  # of tensors alone
_FAKE: Any = TorchDispatchModeKey.FAKE
_fake_mode: Any = get_dispatch_mode
_track: Any = track_tensor_tree


def staged() -> bool:
    """Tell whether a tracer, or one that asks for shapes alone, is at work here: loops are then single operations."""
    return not is_dynamo_compiling() and (get_proxy_mode() is not None or _fake_mode(_FAKE) is not None)


class _Primitive(HigherOrderOperator):
    """An operation that runs functions."""

    run: Callable[..., Any]  # in Python
    samples: Callable[..., list[Tensor]]  # tensors like those that each function gets, from the other arguments
    results: Callable[..., tuple[Tensor, ...]]  # tensors like the results, from what each function has returned

    def __call__(self, *args: Any) -> Any:
        if staged() and functorch.peek_interpreter_stack() is None:
            return super().__call__(*args)  # pyrefly: ignore[missing-attribute] torch fills it in
        return self.run(*args)

    def split(self, args: tuple[Any, ...]) -> tuple[list[Flat], tuple[Any, ...]]:
        """Return the functions among the arguments, and the others."""
        return [args[0]], args[1:]

    def join(self, fns: list[Any], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put arguments together again."""
        return (*fns, *rest)


class _Scan(_Primitive):
    """`scan_p(body, carry, xs, consts, length, reverse)` is (*carry, *ys)."""

    def run(self, body: Flat, carry: Any, xs: Any, consts: Any, length: int, reverse: bool) -> tuple[Tensor, ...]:
        if not length:
            return self.results((carry, xs, consts, 0, reverse), [list(body(*self.samples(carry, xs, consts)))], carry)
        count = len(carry)
        rows: list[Any] = []
        for i in range(length - 1, -1, -1) if reverse else range(length):
            out = body(*carry, *(x[i] for x in xs), *consts)
            carry = out[:count]
            rows.append(out[count:])
        if reverse:
            rows.reverse()
        return (*carry, *map(torch.stack, zip(*rows, strict=True)))

    def samples(self, carry: Any, xs: Any, consts: Any, *_: Any) -> list[Tensor]:
        return [*map(_like, carry), *(_empty(x, x.shape[1:]) for x in xs), *map(_like, consts)]

    def results(self, rest: Any, outs: Any, carry: Any = ()) -> tuple[Tensor, ...]:
        count, length = len(rest[0]), rest[3]
        return (*(carry or map(_like, outs[0][:count])), *(_empty(y, (length, *y.shape)) for y in outs[0][count:]))


class _While(_Primitive):
    """`while_p(cond, body, carry, consts)` is the last carry."""

    def run(self, cond: Callable[..., Tensor], body: Flat, carry: Any, consts: Any) -> tuple[Tensor, ...]:
        while bool(_alone(cond(*carry, *consts))):
            carry = body(*carry, *consts)
        return tuple(carry)

    def split(self, args: Any) -> Any:
        return list(args[:2]), args[2:]

    def samples(self, carry: Any, consts: Any) -> list[Tensor]:
        return [*map(_like, carry), *map(_like, consts)]

    def results(self, rest: Any, outs: Any) -> tuple[Tensor, ...]:
        return tuple(map(_like, outs[1]))


class _Switch(_Primitive):
    """`switch_p(index, branches, operands)` is what one of the branches gives."""

    def run(self, index: Tensor, branches: Sequence[Flat], operands: Any) -> tuple[Tensor, ...]:
        return tuple(branches[int(index)](*operands))

    def split(self, args: Any) -> Any:
        return list(args[1]), (args[0], args[2])

    def join(self, fns: Any, rest: Any) -> Any:
        return rest[0], tuple(fns), rest[1]

    def samples(self, index: Tensor, operands: Any) -> list[Tensor]:
        return list(map(_like, operands))

    def results(self, rest: Any, outs: Any) -> tuple[Tensor, ...]:
        return tuple(map(_like, outs[0]))


class _Callback(_Primitive):
    """`callback_p(fn, operands, token)` runs `fn(*operands)`, and gives nothing."""

    def run(self, fn: Callable[..., Any], operands: Any, token: str) -> tuple[()]:
        fn(*operands)
        return ()

    def split(self, args: Any) -> Any:
        return [], args


scan_p, while_p, switch_p, callback_p = (
    _Scan("torchpure_scan"),
    _While("torchpure_while"),
    _Switch("torchpure_switch"),
    _Callback("torchpure_callback"),
)
has_side_effect(callback_p)
CHECK = "check"  # the token of a callback that is needed only where its operand, of bools, does not hold everywhere
_EFFECTS = frozenset({callback_p, torch.ops.aten._assert_async.msg})


def _alone(out: Any) -> Tensor:
    """Return the one tensor that a function gives: a module of a traced program gives a tuple."""
    return out[0] if isinstance(out, tuple | list) else out


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)


def _like(leaf: Tensor) -> Tensor:
    if _fake_mode(_FAKE) is None:
        return leaf.clone()
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=leaf.device)


def _run_once(fn: Flat, seen: list[Tensor], *given: Tensor) -> Any:
    """Run a function; its results share no memory with what it was given or with each other, and are contiguous."""
    used = {leaf.untyped_storage()._cdata for leaf in given}
    with TensorIndexing():  # modes around are off in here
        out: Any = fn(*given)
    results: list[Tensor] = []
    for leaf in out if isinstance(out, tuple | list) else (out,):
        mine = leaf.contiguous()
        if mine.untyped_storage()._cdata in used:
            mine = mine.clone()
        used.add(mine.untyped_storage()._cdata)
        results.append(mine)
    seen[:] = results
    return tuple(results) if isinstance(out, tuple | list) else results[0]


def _record(op: _Primitive, mode: Any, *args: Any) -> Any:
    """Trace each function to a module, and write one node."""
    fns, rest = op.split(args)
    root, tracer = mode.tracer.root, mode.tracer
    modules, outs = [], []
    with disable_proxy_modes_tracing():
        given = op.samples(*rest)
        for fn in fns:
            outs.append(seen := [])
            modules.append(reenter_make_fx(partial(_run_once, fn, seen))(*given))
    for module in modules:
        root.register_module(_fresh_name(root, op.name().removeprefix("torchpure_") + "_body"), module)
    values = _write(op, tracer, op.join(modules, rest), partial(op.results, rest, outs))
    if values and any(map(_has_effects, modules)):  # a use that stays: results that nobody wants are removed
        _record_callback(mode, _nothing, (min(values, key=Tensor.numel),), "keep")
    return values


def _write(op: _Primitive, tracer: Any, args: Any, results: Callable[[], Any]) -> Any:
    proxies = tree.map(tracer.unwrap_proxy, args)
    node = tracer.create_proxy("call_function", op, proxies, {}, name=op.name().removeprefix("torchpure_"))
    with disable_proxy_modes_tracing():
        values = results()
    return _track(values, node, constant=None, tracer=tracer)


def _record_callback(mode: Any, fn: Any, operands: Any, token: str) -> tuple[()]:
    name = _fresh_name(mode.tracer.root, "callback")
    setattr(mode.tracer.root, name, fn)
    held = mode.tracer.create_proxy("get_attr", name, (), {})
    return _write(callback_p, mode.tracer, (held, operands, token), tuple)


def _fresh_name(root: Any, prefix: str) -> str:
    number = 0
    while hasattr(root, f"{prefix}_{number}"):
        number += 1
    return f"{prefix}_{number}"


def _has_effects(module: GraphModule) -> bool:
    return any(node.target in _EFFECTS for node in module.graph.nodes)


def _nothing(*_: Tensor) -> None:
    """Do nothing."""


def _shapes(op: _Primitive, mode: FakeTensorMode, *args: Any) -> Any:
    """Run each function once, for the shapes of the results."""
    with mode:
        fns, rest = op.split(args)
        if op is callback_p:
            return ()
        given = op.samples(*rest)
        outs: list[list[Tensor]] = []
        for fn in fns:
            outs.append(seen := [])
            _run_once(fn, seen, *given)
        return op.results(rest, outs)


def pass_through(mode_class: Any) -> None:
    """Let the primitives through a mode of our own: it is at work in their functions too."""
    for op in (scan_p, while_p, switch_p, callback_p):
        op.py_impl(mode_class)(partial(_through, op))


def _through(op: _Primitive, mode: Any, *args: Any) -> Any:
    fns, rest = op.split(args)
    given = [leaf for leaf in tree.leaves(rest) if isinstance(leaf, Tensor)]
    if fns and given and not any(isinstance(leaf, FakeTensor) for leaf in given):
        with disable_current_modes():
            return op.run(*args)
    return op(*op.join([partial(_within, mode, fn) for fn in fns], rest))


def _within(mode: Any, fn: Flat, *given: Tensor) -> Any:
    with mode:
        return fn(*given)


def _below(op: _Primitive, *args: Any) -> Any:
    with AutoDispatchBelowAutograd():
        return op(*args)


_every: tuple[_Primitive, ...] = (scan_p, while_p, switch_p, callback_p)
for _op in _every:
    _op.py_impl(DispatchKey.CompositeExplicitAutograd)(_op.run)
    _op.py_impl(DispatchKey.Autograd)(partial(_below, _op))
    _op.py_impl(FakeTensorMode)(partial(_shapes, _op))
    _op.py_impl(ProxyTorchDispatchMode)(_record_callback if _op is callback_p else partial(_record, _op))

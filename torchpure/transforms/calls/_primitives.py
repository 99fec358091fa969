"""Loops, branches and callbacks as higher order operators: `scan_p`, `while_p`, `switch_p`, `callback_p`.

Outside of a tracer they run as Python loops. Under make_fx each becomes one node, and each of its functions becomes a
submodule. Under a fake mode, which computes shapes only, each function runs once.
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
    set_fwd_grad_enabled,
)
from torchpure.transforms.engine import LightFakeMode, TensorIndexing, functorch, track_fakes

FlatFn = Callable[..., Sequence[Tensor]]  # takes and returns tensors only
_FAKE: Any = TorchDispatchModeKey.FAKE
_dispatch_mode: Any = get_dispatch_mode  # pyrefly: ignore[missing-attribute]


def is_tracing() -> bool:
    """Tell whether make_fx or a fake mode is active: loops are then single operations."""
    return not is_dynamo_compiling() and (get_proxy_mode() is not None or _dispatch_mode(_FAKE) is not None)


class _Primitive(HigherOrderOperator):
    """An operator that takes functions."""

    run: Callable[..., Any]  # the operator in Python
    example_inputs: Callable[..., list[Tensor]]  # inputs of each function, made from the other arguments
    example_results: Callable[..., tuple[Tensor, ...]]  # results, made from one output of each function

    def __call__(self, *args: Any) -> Any:
        if is_tracing() and functorch.peek_interpreter_stack() is None:
            return super().__call__(*args)  # pyrefly: ignore[missing-attribute] torch defines it
        return self.run(*args)

    def split_functions(self, args: tuple[Any, ...]) -> tuple[list[FlatFn], tuple[Any, ...]]:
        """Return the functions among the arguments, and the other arguments."""
        return [args[0]], args[1:]

    def join_functions(self, fns: list[Any], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of the operator: the inverse of `split_functions`."""
        return (*fns, *rest)


class _Scan(_Primitive):
    """`scan_p(body, carry, xs, consts, length, reverse)` returns (*carry, *ys)."""

    def run(self, body: FlatFn, carry: Any, xs: Any, consts: Any, length: int, reverse: bool) -> tuple[Tensor, ...]:
        if not length:
            return self.example_results(
                (carry, xs, consts, 0, reverse), [list(body(*self.example_inputs(carry, xs, consts)))], carry
            )
        count = len(carry)
        rows: list[Any] = []
        for i in range(length - 1, -1, -1) if reverse else range(length):
            out = body(*carry, *(x[i] for x in xs), *consts)
            carry = out[:count]
            rows.append(out[count:])
        if reverse:
            rows.reverse()
        return (*carry, *map(torch.stack, zip(*rows, strict=True)))

    def example_inputs(self, carry: Any, xs: Any, consts: Any, *_: Any) -> list[Tensor]:
        return [*map(_example_like, carry), *(_zeros(x, x.shape[1:]) for x in xs), *map(_example_like, consts)]

    def example_results(self, rest: Any, outs: Any, carry: Any = ()) -> tuple[Tensor, ...]:
        count, length = len(rest[0]), rest[3]
        return (
            *(carry or map(_example_like, outs[0][:count])),
            *(_zeros(y, (length, *y.shape)) for y in outs[0][count:]),
        )


class _While(_Primitive):
    """`while_p(cond, body, carry, consts)` returns the last carry."""

    def run(self, cond: Callable[..., Tensor], body: FlatFn, carry: Any, consts: Any) -> tuple[Tensor, ...]:
        while bool(_single(cond(*carry, *consts))):
            carry = body(*carry, *consts)
        return tuple(carry)

    def split_functions(self, args: Any) -> Any:
        return list(args[:2]), args[2:]

    def example_inputs(self, carry: Any, consts: Any) -> list[Tensor]:
        return [*map(_example_like, carry), *map(_example_like, consts)]

    def example_results(self, rest: Any, outs: Any) -> tuple[Tensor, ...]:
        return tuple(map(_example_like, outs[1]))


class _Switch(_Primitive):
    """`switch_p(index, branches, operands)` returns the results of one branch."""

    def run(self, index: Tensor, branches: Sequence[FlatFn], operands: Any) -> tuple[Tensor, ...]:
        return tuple(branches[int(index)](*operands))

    def split_functions(self, args: Any) -> Any:
        return list(args[1]), (args[0], args[2])

    def join_functions(self, fns: Any, rest: Any) -> Any:
        return rest[0], tuple(fns), rest[1]

    def example_inputs(self, index: Tensor, operands: Any) -> list[Tensor]:
        return list(map(_example_like, operands))

    def example_results(self, rest: Any, outs: Any) -> tuple[Tensor, ...]:
        return tuple(map(_example_like, outs[0]))


class _Callback(_Primitive):
    """`callback_p(fn, operands, token)` runs `fn(*operands)` and returns nothing."""

    def run(self, fn: Callable[..., Any], operands: Any, token: str) -> tuple[()]:
        fn(*operands)
        return ()

    def split_functions(self, args: Any) -> Any:
        return [], args


scan_p, while_p, switch_p, callback_p = (
    _Scan("torchpure_scan"),
    _While("torchpure_while"),
    _Switch("torchpure_switch"),
    _Callback("torchpure_callback"),
)
has_side_effect(callback_p)
CHECK = "check"  # token of a callback that matters only if some bool of its operand is False
_EFFECTS = frozenset({callback_p, torch.ops.aten._assert_async.msg})


def _single(out: Any) -> Tensor:
    """Return the only result of a function; a module of a traced program returns it in a tuple."""
    return out[0] if isinstance(out, tuple | list) else out


def _zeros(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)


def _example_like(leaf: Tensor) -> Tensor:
    if _dispatch_mode(_FAKE) is None:
        return leaf.clone()
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=leaf.device)


def with_known_results(fn: FlatFn, results: Sequence[Tensor]) -> FlatFn:
    """Note the results of a function on inputs like those that it will get. Nested loops then run it less often."""
    if all(isinstance(leaf, FakeTensor) for leaf in results):  # a transform's tensors have other shapes inside
        fn.known_results = results  # pyrefly: ignore[missing-attribute]
    return fn


def _run_once(fn: FlatFn, last_results: list[Tensor], *inputs: Tensor) -> Any:
    """Run a function; make its results contiguous and unaliased with its inputs and with each other."""
    storages = {leaf.untyped_storage()._cdata for leaf in inputs}
    with TensorIndexing():  # torch disables outer modes inside
        out: Any = fn(*inputs)
    results: list[Tensor] = []
    for leaf in out if isinstance(out, tuple | list) else (out,):
        result = leaf.contiguous()
        if result.untyped_storage()._cdata in storages:
            result = result.clone()
        storages.add(result.untyped_storage()._cdata)
        results.append(result)
    last_results[:] = results
    return tuple(results) if isinstance(out, tuple | list) else results[0]


def _trace_node(op: _Primitive, mode: Any, *args: Any) -> Any:
    """Trace each function to a module, and create one node for the operator."""
    fns, rest = op.split_functions(args)
    root, tracer = mode.tracer.root, mode.tracer
    bodies, outs = [], []
    with disable_proxy_modes_tracing():
        inputs = op.example_inputs(*rest)
        for fn in fns:
            outs.append(last_results := [])
            bodies.append(reenter_make_fx(partial(_run_once, fn, last_results))(*inputs))
    for body in bodies:
        root.register_module(_unused_name(root, op.name().removeprefix("torchpure_") + "_body"), body)
    values = _create_node(op, tracer, op.join_functions(bodies, rest), partial(op.example_results, rest, outs))
    # a callback on a result keeps the node alive in dead code elimination
    if values and any(map(_has_effects, bodies)):
        _trace_callback(mode, _no_op, (min(values, key=Tensor.numel),), "keep")
    return values


def _create_node(op: _Primitive, tracer: Any, args: Any, results: Callable[[], Any]) -> Any:
    proxies = tree.map(tracer.unwrap_proxy, args)
    node = tracer.create_proxy("call_function", op, proxies, {}, name=op.name().removeprefix("torchpure_"))
    with disable_proxy_modes_tracing():
        values = results()
    return track_fakes(tracer, values, node)


def _trace_callback(mode: Any, fn: Any, operands: Any, token: str) -> tuple[()]:
    name = _unused_name(mode.tracer.root, "callback")
    setattr(mode.tracer.root, name, fn)
    function = mode.tracer.create_proxy("get_attr", name, (), {})
    return _create_node(callback_p, mode.tracer, (function, operands, token), tuple)


def _unused_name(root: Any, prefix: str) -> str:
    number = 0
    while hasattr(root, f"{prefix}_{number}"):
        number += 1
    return f"{prefix}_{number}"


def _has_effects(body: GraphModule) -> bool:
    return any(node.target in _EFFECTS for node in body.graph.nodes)


def _no_op(*_: Tensor) -> None:
    """Do nothing."""


def _fake_results(op: _Primitive, mode: FakeTensorMode, *args: Any) -> Any:
    """Run each function once, to get the shapes of the results."""
    with mode:
        fns, rest = op.split_functions(args)
        if op is callback_p:
            return ()
        inputs = op.example_inputs(*rest)
        outs: list[list[Tensor]] = []
        for fn in fns:
            known = getattr(fn, "known_results", None)
            outs.append(last_results := [] if known is None else [_zeros(leaf, leaf.shape) for leaf in known])
            if known is None:
                _run_once(fn, last_results, *inputs)
        return op.example_results(rest, outs)


def register_mode(mode_class: Any) -> None:
    """Let the primitives work under a dispatch mode of this library; it stays active in their functions."""
    for op in (scan_p, while_p, switch_p, callback_p):
        op.py_impl(mode_class)(partial(_call_under_mode, op))


def register_recorder(mode_class: Any) -> None:
    """Let the primitives become nodes under a proxy mode of this library."""
    for op in (scan_p, while_p, switch_p, callback_p):
        op.py_impl(mode_class)(_trace_callback if op is callback_p else partial(_trace_node, op))


def _call_under_mode(op: _Primitive, mode: Any, *args: Any) -> Any:
    fns, rest = op.split_functions(args)
    inputs = [leaf for leaf in tree.leaves(rest) if isinstance(leaf, Tensor)]
    if fns and inputs and not any(isinstance(leaf, FakeTensor) for leaf in inputs):
        with disable_current_modes():
            return op.run(*args)
    wrapped = [
        with_known_results(partial(_run_with_mode, mode, fn), getattr(fn, "known_results", [None])) for fn in fns
    ]
    return op(*op.join_functions(wrapped, rest))


def _run_with_mode(mode: Any, fn: FlatFn, *inputs: Tensor) -> Any:
    with mode:
        return fn(*inputs)


def _below_autograd(op: _Primitive, *args: Any) -> Any:
    # the bodies are traced here: nothing in them may ask for a tangent, which torch could not give below autograd
    with AutoDispatchBelowAutograd(), set_fwd_grad_enabled(False):
        return op(*args)


_primitives: tuple[_Primitive, ...] = (scan_p, while_p, switch_p, callback_p)
for _op in _primitives:
    _op.py_impl(DispatchKey.CompositeExplicitAutograd)(_op.run)
    _op.py_impl(DispatchKey.Autograd)(partial(_below_autograd, _op))
    for _mode in (FakeTensorMode, LightFakeMode):
        _op.py_impl(_mode)(partial(_fake_results, _op))
register_recorder(ProxyTorchDispatchMode)

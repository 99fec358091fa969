"""Handlers of elementwise operations: each element depends on the elements at the same index."""

from typing import Any

import torch
from torch.fx import Node

from torchpure.jit.native.ir import KernelBuilder, Number, Opaque, UnsupportedError, Value, View, c_type, longest_last

from . import _cpp_formulas as formats
from ._matmul import row_major_picture
from ._pointwise import as_value, pointwise
from ._scope import HANDLERS, Scope, cast, fake_value, handles, operation_name

Loaded = list[tuple[str, torch.dtype]]


def _in_dtype(text: str, dtype: torch.dtype) -> Any:
    def compute(build: KernelBuilder, loaded: Loaded) -> str:
        return build.compute(dtype, text, *(cast(build, name, old, dtype) for name, old in loaded))

    return compute


def _comparison(text: str, meet: torch.dtype) -> Any:
    def compute(build: KernelBuilder, loaded: Loaded) -> str:
        return build.compute(torch.bool, text, *(cast(build, name, old, meet) for name, old in loaded))

    return compute


def _conversion(dtype: torch.dtype) -> Any:
    return lambda build, loaded: cast(build, loaded[0][0], loaded[0][1], dtype)


def _example_arguments(node: Node) -> list[Any]:
    return [arg.meta["val"] if isinstance(arg, Node) else arg for arg in node.args]


def _arithmetic_handler(name: str, text: str) -> Any:
    def handler(scope: Scope, node: Node, *args: Any, **kwargs: Any) -> View:
        out = fake_value(node)
        count = 2 if "{1}" in text else 1
        alpha = kwargs.get("alpha", args[2] if name in {"add", "sub"} and len(args) > 2 else 1)
        kind = torch.uint8 if out.dtype is torch.bool and name in {"add", "mul", "maximum", "minimum"} else out.dtype

        def compute(build: KernelBuilder, loaded: Loaded) -> str:
            names = [cast(build, name, old, kind) for name, old in loaded]
            if alpha != 1:
                names[1] = build.compute(kind, "{0} * {1}", build.number(alpha, kind), names[1])
            return cast(build, build.compute(kind, text, *names), kind, out.dtype)

        return pointwise(scope, out.shape, out.dtype, args[:count], compute)

    return handler


def _compare_handler(text: str) -> Any:
    def handler(scope: Scope, node: Node, *args: Any) -> View:
        out, given = fake_value(node), _example_arguments(node)
        meet = torch.result_type(given[0], given[1]) if len(given) > 1 else given[0].dtype
        return pointwise(scope, out.shape, torch.bool, args, _comparison(text, meet))

    return handler


HANDLERS.update({name: _arithmetic_handler(name, text) for name, text in formats.ARITHMETIC.items()})
HANDLERS.update({name: _compare_handler(text) for name, text in formats.COMPARISONS.items()})


@handles("clone")
def _clone(scope: Scope, node: Node, x: Value, **options: Any) -> Value:
    """Return a temporary itself, if no node of this scope changes memory: nobody sees that it is no copy."""
    if isinstance(x, Number) or (x.buffer.temporary and not scope.mutated):
        return x
    if options.get("memory_format") is torch.contiguous_format and (rows := row_major_picture(scope, x)) is not None:
        return rows
    return scope.materialize(x, longest_last(x.shape))


@handles("bitwise_not")
def _bitwise_not(scope: Scope, node: Node, x: Any) -> View:
    out = fake_value(node)
    return pointwise(scope, out.shape, out.dtype, [x], _in_dtype(formats.NOT.get(out.dtype, "~{0}"), out.dtype))


@handles("div", "floor_divide")
def _div(scope: Scope, node: Node, a: Any, b: Any, rounding_mode: str | None = None) -> View:
    out = fake_value(node)
    if "floor_divide" in str(node.target):
        rounding_mode = "floor"
    whole = not out.dtype.is_floating_point
    if rounding_mode == "floor" and whole:
        text = "op_floor_divide({0}, {1}, bad)"
    elif (
        rounding_mode == "floor"
    ):  # as in torch: exact, also where the quotient rounds up to an integer, and for infinity
        text = "op_divide_down({0}, {1})"
    else:
        text = "op_trunc_divide({0}, {1}, bad)" if whole else "{0} / {1}"
    if rounding_mode == "trunc" and not whole:
        text = f"op_trunc({text})"
    return pointwise(scope, out.shape, out.dtype, [a, b], _in_dtype(text, out.dtype))


@handles("remainder", "fmod")
def _remainder(scope: Scope, node: Node, a: Any, b: Any) -> View:
    out, name = fake_value(node), operation_name(node)
    if out.dtype.is_floating_point:
        text = f"op_{name}({{0}}, {{1}})"
    elif name == "fmod":
        text = "{0} - op_trunc_divide({0}, {1}, bad) * {1}"
    else:
        text = "op_modulo({0}, {1}, bad)"
    return pointwise(scope, out.shape, out.dtype, [a, b], _in_dtype(text, out.dtype))


@handles("rsub")
def _rsub(scope: Scope, node: Node, a: Any, b: Any, alpha: Any = 1) -> View:
    if alpha != 1:
        raise UnsupportedError("rsub with alpha")
    out = fake_value(node)
    return pointwise(scope, out.shape, out.dtype, [b, a], _in_dtype("{0} - {1}", out.dtype))


@handles("pow")
def _pow(scope: Scope, node: Node, a: Any, b: Any) -> View:
    out = fake_value(node)
    number = b.value if isinstance(b, Number) else b
    if not out.dtype.is_floating_point:
        text = "op_ipow({0}, {1})"
    elif isinstance(number, int | float) and float(number) in formats.POWERS:
        return pointwise(scope, out.shape, out.dtype, [a], _in_dtype(formats.POWERS[float(number)], out.dtype))
    else:
        text = "op_pow({0}, {1})"
    return pointwise(scope, out.shape, out.dtype, [a, b], _in_dtype(text, out.dtype))


@handles("where")
def _where(scope: Scope, node: Node, condition: Any, a: Any, b: Any) -> View:
    out = fake_value(node)

    def compute(build: KernelBuilder, loaded: Loaded) -> str:
        (c, old), *rest = loaded
        names = [cast(build, name, dtype, out.dtype) for name, dtype in rest]
        return build.compute(out.dtype, "{0} ? {1} : {2}", cast(build, c, old, torch.bool), *names)

    return pointwise(scope, out.shape, out.dtype, [condition, a, b], compute)


@handles("clamp", "clamp_min", "clamp_max")
def _clamp(scope: Scope, node: Node, x: Any, low: Any = None, high: Any = None) -> View:
    out = fake_value(node)
    if "clamp_max" in str(node.target):
        low, high = None, low
    text, given = "{0}", [x]
    if low is not None:
        text, given = "op_max({0}, {1})", [x, low]
    if high is not None:
        given.append(high)
        text = f"op_min({text}, {{{len(given) - 1}}})"
    return pointwise(scope, out.shape, out.dtype, given, _in_dtype(text, out.dtype))


@handles("round")
def _round(scope: Scope, node: Node, x: Any, decimals: int = 0) -> View:
    if decimals:
        return scope.call_torch(node)
    out = fake_value(node)
    return pointwise(scope, out.shape, out.dtype, [x], _in_dtype("op_rint({0})", out.dtype))


@handles("_to_copy", "convert_element_type", "to")
def _to_copy(scope: Scope, node: Node, x: Any, dtype: Any = None, **kwargs: Any) -> Any:
    out = fake_value(node)
    if out.device.type != "cpu":
        raise UnsupportedError("other devices")
    if isinstance(x, Number):
        return Number(torch.tensor(x.value, dtype=x.dtype).to(out.dtype).item(), tuple(out.shape), out.dtype)
    return pointwise(scope, out.shape, out.dtype, [x], _conversion(out.dtype))


@handles("full", "full_like", "zeros", "ones", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_full", "scalar_tensor", "fill", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")  # fmt: skip  # noqa: E501
def _full(scope: Scope, node: Node, *args: Any, **kwargs: Any) -> Any:
    out, name = fake_value(node), operation_name(node)
    if out.device.type != "cpu":
        raise UnsupportedError("other devices")
    value: Any = 1 if "ones" in name else 0
    if name in {"full", "full_like", "fill"}:
        value = args[1]
    elif name in {"scalar_tensor", "new_full"}:
        value = args[0] if name == "scalar_tensor" else args[2]
    c_type(out.dtype)
    if isinstance(value, View):
        return pointwise(scope, out.shape, out.dtype, [value], _conversion(out.dtype))
    if isinstance(value, Number):
        value = value.value
    return Number(value, tuple(out.shape), out.dtype)


@handles("arange", "iota")
def _arange(scope: Scope, node: Node, *args: Any, **kwargs: Any) -> View:
    out = fake_value(node)
    if "iota" in str(node.target):
        start, step = kwargs.get("start", 0), kwargs.get("step", 1)
    else:
        start = args[0] if len(args) > 1 else 0
        step = args[2] if len(args) > 2 else kwargs.get("step", 1)
    build = scope.new_kernel(out.shape)
    made = scope.empty(out.shape, out.dtype)
    build.store(made, build.iota(out.dtype, start, step, 0))
    scope.append_kernel(build)
    return made


@handles("copy")
def _copy(scope: Scope, node: Node, target: Any, source: Any, non_blocking: bool = False) -> View:
    out = fake_value(node)
    return pointwise(scope, out.shape, out.dtype, [source], _conversion(out.dtype))


@handles("tril", "triu")
def _triangle(scope: Scope, node: Node, x: Any, diagonal: int = 0) -> View:
    out = fake_value(node)
    sign = "<=" if "tril" in str(node.target) else ">="
    build = scope.new_kernel(out.shape)
    rank = len(out.shape)
    row, column = (build.iota(torch.int64, 0, 1, rank - 2), build.iota(torch.int64, 0, 1, rank - 1))
    loaded = build.load(as_value(x, out.dtype), out.shape)
    text = f"{{1}} - {{0}} {sign} {diagonal} ? {{2}} : 0"
    made = scope.empty(out.shape, out.dtype)
    build.store(made, build.compute(out.dtype, text, row, column, loaded))
    scope.append_kernel(build)
    return made


@handles("_assert_async", "_functional_assert_async")
def _assert(scope: Scope, node: Node, condition: Any, message: str = "a check does not hold", *_: Any) -> None:
    view = scope.materialize(condition)
    number = len(scope.state.check_messages)
    scope.state.check_messages.append(message)
    text = f"if (!{view.buffer.slot}[{view.offset}]) return {number + 1};"
    scope.items.append(Opaque(text, (view.buffer,), ()))

"""From the nodes of a traced program to kernels."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._torch import HigherOrderOperator, OpOverload
from torchpure.jit.native.frontend import changed, changes, picks_of_nothing, reshapes, takes_complex_numbers
from torchpure.jit.native.ir import (
    Buffer,
    Builder,
    Names,
    Number,
    UnsupportedError,
    Value,
    View,
    c_type,
    dense_strides,
    longest_last,
    order_of,
)

LARGEST, AROUND = 1 << 18, 1 << 22  # turns of one kernel: more are worth several threads; those around loops run once
Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}  # by the name of an operation: handler(scope, node, *args, **kwargs)
PRIMITIVES: dict[str, Handler] = {}  # by the name of a loop primitive, likewise


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register the handler of operations."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


class Program:
    """What all scopes of one program share."""

    def __init__(self, rest: Handler | None = None) -> None:
        self.rest = rest  # serves operations that have no handler: rest(scope, node, args, kwargs)
        self.names = Names()
        self.constants: list[Tensor] = []  # read at run time through pointers
        self.constant_views: dict[int, View] = {}
        self.callbacks: list[Any] = []  # Python functions, with what their operands look like
        self.messages: list[str] = []  # of checks
        self.uses_library = False  # for products
        self.calls_torch = False  # for operations without a handler
        self.reenters = False  # a callback may run the program again


class Scope:
    """A straight piece of a program, such as the body of a loop: values of nodes, and kernels in order."""

    def __init__(self, program: Program, module: GraphModule, parent: "Scope | None" = None) -> None:
        self.program, self.module, self.parent = program, module, parent
        self.loops = any(isinstance(node.target, HigherOrderOperator) for node in module.graph.nodes)
        self.items: list[Any] = []  # Kernel, Opaque, or what a primitive makes
        self.values: dict[Node, Any] = {}
        self.temporaries: list[Buffer] = []

    def buffer(self, dtype: torch.dtype, size: int, *, temporary: bool = True, apart: bool = False) -> Buffer:
        """Make a buffer of this scope."""
        c_type(dtype)
        made = Buffer(self.program.names.new("b"), dtype, size, temporary, apart)
        if temporary:
            self.temporaries.append(made)
        return made

    def empty(self, shape: Sequence[int], dtype: torch.dtype, order: Sequence[int] | None = None) -> View:
        """Make memory for a tensor; by default its longest dimension is innermost."""
        shape = tuple(shape)
        strides = dense_strides(shape, longest_last(shape) if order is None else order)
        return View(self.buffer(dtype, prod(shape)), shape, strides)

    def builder(self, shape: Sequence[int], folded: Sequence[int] = ()) -> Builder:
        """Begin a kernel."""
        return Builder(self.program.names, shape, folded)

    def add(self, builder: Builder) -> None:
        """Append a kernel; one without a turn is left out.

        Raises:
            UnsupportedError: it is so large that several threads should share it.
        """
        turns = prod(builder.kernel.sizes)
        if turns > (AROUND if self.parent is None and self.loops else LARGEST):
            raise UnsupportedError("a large tensor")
        if 0 not in builder.kernel.sizes:
            self.items.append(builder.kernel)

    def copy(self, value: Value, target: View) -> None:
        """Copy a value of the same shape into a view."""
        build = self.builder(target.shape)
        loaded = build.load(value, target.shape)
        build.store(target, cast(build, loaded, value.dtype, target.dtype))
        self.add(build)

    def materialized(self, value: Value, order: Sequence[int] | None = None) -> View:
        """Give a value memory of its own, unless it is one with memory and no order is asked for."""
        if isinstance(value, View) and order is None:
            return value
        made = self.empty(value.shape, value.dtype, order)
        self.copy(value, made)
        return made

    def rows(self, value: Value) -> View:
        """Give a value memory of its own, row by row, which others may change."""
        if isinstance(value, View) and value.strides == dense_strides(value.shape) and value.buffer.temporary:
            return value
        return self.materialized(value, range(len(value.shape)))

    def _own_rows(self, value: Any) -> Any:
        """Do so for all that an operation gives; loops may give one memory twice, or that of what they were given."""
        if isinstance(value, list | tuple):
            return [self.materialized(part, range(len(part.shape))) if part is not None else part for part in value]
        return self.rows(value)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Lower every node; return the values of the output."""
        given, rows = iter(inputs), changed(self.module)
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(given)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(node)
            elif node.op == "output":
                return [self.value(arg) for arg in _outputs(node)]
            else:
                self.values[node] = self._call(node)
                if node in rows:
                    self.values[node] = self._own_rows(self.values[node])
        raise UnsupportedError("a program without an output")

    def value(self, arg: Any) -> Any:
        """Return what stands for an argument of a node: values for nodes, in containers too."""
        if isinstance(arg, Node):
            return self.values[arg]
        if isinstance(arg, list | tuple):
            return type(arg)(map(self.value, arg)) if type(arg) in {list, tuple} else tuple(map(self.value, arg))
        return arg

    def _attribute(self, node: Node) -> Any:
        found = self.module
        for name in str(node.target).split("."):
            found = getattr(found, name)
        return self.constant(found) if isinstance(found, Tensor) else found

    def constant(self, tensor: Tensor) -> View:
        """Read a tensor that the program holds."""
        program = self.program
        if id(tensor) not in program.constant_views:
            if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
                raise UnsupportedError(f"constants on {tensor.device}")
            program.constants.append(tensor)
            size = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            made = Buffer(program.names.new("k"), tensor.dtype, size, temporary=False)
            c_type(tensor.dtype)
            program.constant_views[id(tensor)] = View(made, tuple(tensor.shape), tuple(tensor.stride()))
        return program.constant_views[id(tensor)]

    def _call(self, node: Node) -> Any:
        target: Any = node.target
        if picks_of_nothing(node) or takes_complex_numbers(node):
            raise UnsupportedError(f"{target} of an empty tensor or a complex number")
        args = [self.value(arg) for arg in node.args]
        kwargs = {name: self.value(arg) for name, arg in node.kwargs.items()}
        if target.__class__.__name__ == "builtin_function_or_method" and target.__name__ == "getitem":
            return args[0][args[1]]
        if isinstance(target, HigherOrderOperator):
            handler = PRIMITIVES.get(target.name())
            name = target.name()
        else:
            name = getattr(target, "_opname", None) or str(target)
            space = getattr(target, "namespace", "")
            handler = HANDLERS.get(name) if space in {"aten", "prims"} else None
        if handler is None and reshapes(node):  # whoever reads the tensor later reads this node
            handler = HANDLERS.get(name.removesuffix("_"))
        if handler is None and changes(node) and name.endswith("_"):
            return self._change(node, name, args, kwargs)
        if handler is None and self.program.rest and isinstance(target, OpOverload):
            return self.program.rest(self, node, args, kwargs)
        if handler is None:
            raise UnsupportedError(f"the operation {name}")
        if _constant(name, args, kwargs) and isinstance(node.meta.get("val"), Tensor):
            return _folded(node, args, kwargs)
        return handler(self, node, *args, **kwargs)

    def _change(self, node: Node, name: str, args: list[Any], kwargs: dict[str, Any]) -> View:
        """Compute what an operation writes to its first argument, and write it."""
        target = args[0]
        handler = HANDLERS.get({"zero_": "zeros_like"}.get(name, name.removesuffix("_")))
        if reshapes(node) or handler is None or not isinstance(target, View) or not target.buffer.temporary:
            raise UnsupportedError(f"the operation {name}")
        self.copy(handler(self, node, *args, **kwargs), target)
        return target


_ELEMENTWISE = frozenset({
    "add", "sub", "mul", "div", "pow", "neg", "abs", "sqrt", "rsqrt", "reciprocal", "exp", "log", "eq", "ne", "lt",
    "le", "gt", "ge", "where", "minimum", "maximum", "clamp", "logical_not", "logical_and", "logical_or", "rsub",
    "bitwise_and", "bitwise_or", "bitwise_not", "sign", "_to_copy", "clone", "convert_element_type",
})  # fmt: skip


def _constant(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a result is one number everywhere, because all arguments are."""
    given = [*args, *kwargs.values()]
    return (
        name in _ELEMENTWISE
        and any(isinstance(a, Number) for a in given)
        and not any(isinstance(a, View | list | tuple) for a in given)
    )


def _folded(node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Number:
    """Compute a number now, with torch's own operation."""
    target: Any = node.target
    real = [torch.tensor(a.value, dtype=a.dtype) if isinstance(a, Number) else a for a in args]
    out = node.meta["val"]
    return Number(target(*real, **kwargs).item(), tuple(out.shape), out.dtype)


def _outputs(node: Node) -> Sequence[Any]:
    found: Any = node.args[0]
    return found if isinstance(found, list | tuple) else (found,)


def meta(node: Node) -> Any:
    """Return the tensor without numbers that stands for a node's value."""
    return node.meta["val"]


def operation(node: Node) -> str:
    """Return the name of the operation of a node; one that changes its argument is named by what it computes."""
    name = str(node.target).split(".")[1]
    return name if name.startswith("_") and not changes(node) else name.removesuffix("_")


def cast(build: Builder, name: str, old: torch.dtype, new: torch.dtype) -> str:
    """Convert a value."""
    if old is new:
        return name
    if new is torch.bool:
        return build.compute(new, "{0} != 0", name)
    return build.compute(new, f"({c_type(new)}){{0}}", name)


def as_value(arg: Any, dtype: torch.dtype) -> Value:
    """Take a Python number as a tensor."""
    return arg if isinstance(arg, View | Number) else Number(arg, (), dtype)


def pointwise(scope: Scope, shape: Sequence[int], dtype: torch.dtype, args: Sequence[Any], compute: Any) -> View:
    """Make a kernel that computes one element from those of its arguments: `compute(build, [(name, dtype)])`."""
    build = scope.builder(shape)
    values = [as_value(arg, _scalar_dtype(arg, dtype)) for arg in args]
    loaded = [(build.load(value, shape), value.dtype) for value in values]
    result = compute(build, loaded)
    out = scope.empty(shape, dtype, _order(values, shape))
    build.store(out, result)
    scope.add(build)
    return out


def _scalar_dtype(arg: Any, dtype: torch.dtype) -> torch.dtype:
    if isinstance(arg, bool):
        return torch.bool
    if isinstance(arg, int):
        return torch.int64
    return dtype if dtype.is_floating_point else torch.float64


def _order(values: Sequence[Value], shape: Sequence[int]) -> list[int] | None:
    """Lay a result out as the argument does that has its shape; there is none if all are smaller."""
    for value in values:
        if isinstance(value, View) and tuple(value.shape) == tuple(shape):
            long = [stride for size, stride in zip(value.shape, value.strides, strict=True) if size > 1]
            if 0 not in long and len(set(long)) == len(long):
                return order_of(value)
    return None

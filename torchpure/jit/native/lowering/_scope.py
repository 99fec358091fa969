"""Scopes and the table of handlers: walk the nodes of a traced program, and lower each to kernels.

A `Scope` is a piece of straight-line code: the program itself, or the body of a loop or branch. `ModuleState` is shared
by all scopes of a program.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._torch import HigherOrderOperator, OpOverload
from torchpure.jit.native.frontend import (
    has_complex_argument,
    has_sparse_tensor,
    is_inplace_view,
    mutated_nodes,
    mutates_argument,
    selects_from_empty,
)
from torchpure.jit.native.ir import (
    Buffer,
    KernelBuilder,
    NameGenerator,
    Number,
    UnsupportedError,
    Value,
    View,
    c_type,
    dense_strides,
    longest_last,
)

Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}  # operation name -> handler(scope, node, *args, **kwargs)
PRIMITIVES: dict[str, Handler] = {}  # name of a control flow primitive -> handler


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for operations, by name."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


class ModuleState:
    """What all scopes of one program share."""

    def __init__(self, fallback: Handler | None = None) -> None:
        self.fallback = fallback  # lowers other operations: fallback(scope, node, args, kwargs)
        self.names = NameGenerator()
        self.constants: list[Tensor] = []  # passed to the program as pointers
        self.constant_views: dict[int, View] = {}
        self.callbacks: list[Any] = []  # (Python function, views of its operands)
        self.check_messages: list[str] = []
        self.unsized = set[Buffer]()  # results of torch whose size tracing does not know
        self.uses_blas = False
        self.calls_torch = False
        self.shares_work = False  # threads share a kernel
        self.polls = False  # a loop looks for signals
        self.may_reenter = False  # a callback may call the program again


class Scope:
    """A piece of straight-line code, such as the body of a loop: the values of its nodes, and its items in order."""

    def __init__(self, state: ModuleState, module: GraphModule) -> None:
        self.state, self.module = state, module
        self.items: list[Any] = []  # Kernel, Opaque, Loop, Branches or Callback
        self.values: dict[Node, Any] = {}
        self.mutated = mutated_nodes(module)  # nodes whose memory is changed later
        self.temporaries: list[Buffer] = []

    def buffer(self, dtype: torch.dtype, size: int, *, temporary: bool = True, disjoint_writes: bool = False) -> Buffer:
        """Make a buffer of this scope."""
        c_type(dtype)
        made = Buffer(self.state.names.new("b"), dtype, size, temporary, disjoint_writes)
        if temporary:
            self.temporaries.append(made)
        return made

    def empty(self, shape: Sequence[int], dtype: torch.dtype, order: Sequence[int] | None = None) -> View:
        """Allocate a tensor. By default its longest dimension is innermost in memory."""
        shape = tuple(shape)
        strides = dense_strides(shape, longest_last(shape) if order is None else order)
        return View(self.buffer(dtype, prod(shape)), shape, strides)

    def new_kernel(self, shape: Sequence[int], reduced_dims: Sequence[int] = ()) -> KernelBuilder:
        """Start a kernel."""
        return KernelBuilder(self.state.names, shape, reduced_dims)

    def append_kernel(self, builder: KernelBuilder) -> None:
        """Append a kernel, unless its domain is empty."""
        if 0 not in builder.kernel.sizes:
            self.items.append(builder.kernel)

    def copy(self, value: Value, target: View) -> None:
        """Copy a value into a view of the same shape."""
        build = self.new_kernel(target.shape)
        loaded = build.load(value, target.shape)
        build.store(target, cast(build, loaded, value.dtype, target.dtype))
        self.append_kernel(build)

    def materialize(self, value: Value, order: Sequence[int] | None = None) -> View:
        """Return a view of a value: its own, or a copy if it is a number or an order of dimensions is asked for."""
        if isinstance(value, View) and order is None:
            return value
        made = self.empty(value.shape, value.dtype, order)
        self.copy(value, made)
        return made

    def row_major(self, value: Value) -> View:
        """Return a row-major view in temporary memory, which may be written."""
        if isinstance(value, View) and value.strides == dense_strides(value.shape) and value.buffer.temporary:
            return value
        return self.materialize(value, range(len(value.shape)))

    def _row_major_results(self, value: Any) -> Any:
        """Make all results of an operation row-major in memory of their own.

        Several results are always copied: a loop may return one memory twice, or the memory of an argument.
        """
        if isinstance(value, list | tuple):
            return [self.materialize(part, range(len(part.shape))) if part is not None else part for part in value]
        return self.row_major(value)

    def lower(self, inputs: Sequence[Any]) -> list[Any]:
        """Lower every node. Return the values of the outputs."""
        remaining = iter(inputs)
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(remaining)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(node)
            elif node.op == "output":
                return [self.resolve(arg) for arg in program_outputs(self.module)]
            else:
                self.values[node] = self._lower_call(node)
                if node in self.mutated:
                    self.values[node] = self._row_major_results(self.values[node])
        raise UnsupportedError("a program without an output")

    def resolve(self, arg: Any) -> Any:
        """Return the value of an argument of a node: nodes become their values, also in containers."""
        if isinstance(arg, Node):
            return self.values[arg]
        if isinstance(arg, list | tuple):
            return type(arg)(map(self.resolve, arg)) if type(arg) in {list, tuple} else tuple(map(self.resolve, arg))
        return arg

    def _attribute(self, node: Node) -> Any:
        found = self.module
        for name in str(node.target).split("."):
            found = getattr(found, name)
        return self.constant(found) if isinstance(found, Tensor) else found

    def constant(self, tensor: Tensor) -> View:
        """Return a view of a tensor that the program holds."""
        state = self.state
        if id(tensor) not in state.constant_views:
            if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
                raise UnsupportedError(f"constants on {tensor.device}")
            state.constants.append(tensor)
            size = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            made = Buffer(state.names.new("k"), tensor.dtype, size, temporary=False)
            c_type(tensor.dtype)
            state.constant_views[id(tensor)] = View(made, tuple(tensor.shape), tuple(tensor.stride()))
        return state.constant_views[id(tensor)]

    def _lower_call(self, node: Node) -> Any:
        target: Any = node.target
        if selects_from_empty(node) or has_complex_argument(node) or has_sparse_tensor(node):
            raise UnsupportedError(f"{target} of an empty or a sparse tensor, or a complex number")
        args = [self.resolve(arg) for arg in node.args]
        kwargs = {name: self.resolve(arg) for name, arg in node.kwargs.items()}
        if target.__class__.__name__ == "builtin_function_or_method" and target.__name__ == "getitem":
            return args[0][args[1]]
        if isinstance(target, HigherOrderOperator):
            handler = PRIMITIVES.get(target.name())
            name = target.name()
        else:
            name = getattr(target, "_opname", None) or str(target)
            space = getattr(target, "namespace", "")
            handler = HANDLERS.get(name) if space in {"aten", "prims"} else None
        if handler is None and is_inplace_view(node):  # later readers of the tensor read this node
            handler = HANDLERS.get(name.removesuffix("_"))
        if handler is None and mutates_argument(node) and name.endswith("_"):
            return self._lower_mutation(node, name, args, kwargs)
        if handler is None:
            return self.call_torch(node)
        if _is_uniform(name, args, kwargs) and isinstance(node.meta.get("val"), Tensor):
            return _evaluate_now(node, args, kwargs)
        return handler(self, node, *args, **kwargs)

    def call_torch(self, node: Node) -> Any:
        """Lower an operation to a call of torch's kernel: it has no handler, or its handler does not know the case."""
        if self.state.fallback is None or not isinstance(node.target, OpOverload):
            raise UnsupportedError(f"the operation {getattr(node.target, '_opname', node.target)}")
        args, kwargs = self.resolve(node.args), {name: self.resolve(arg) for name, arg in node.kwargs.items()}
        return self.state.fallback(self, node, args, kwargs)

    def _lower_mutation(self, node: Node, name: str, args: list[Any], kwargs: dict[str, Any]) -> View:
        """Compute what an in-place operation writes, then write it to its first argument."""
        target = args[0]
        handler = HANDLERS.get({"zero_": "zeros_like"}.get(name, name.removesuffix("_")))
        if is_inplace_view(node) or handler is None or not isinstance(target, View) or not target.buffer.temporary:
            raise UnsupportedError(f"the operation {name}")
        self.copy(handler(self, node, *args, **kwargs), target)
        return target


_ELEMENTWISE = frozenset({
    "add", "sub", "mul", "div", "pow", "neg", "abs", "sqrt", "rsqrt", "reciprocal", "exp", "log", "eq", "ne", "lt",
    "le", "gt", "ge", "where", "minimum", "maximum", "clamp", "logical_not", "logical_and", "logical_or", "rsub",
    "bitwise_and", "bitwise_or", "bitwise_not", "sign", "_to_copy", "clone", "convert_element_type",
})  # fmt: skip


def _is_uniform(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a result is one number everywhere, because all arguments are."""
    given = [*args, *kwargs.values()]
    return (
        name in _ELEMENTWISE
        and any(isinstance(a, Number) for a in given)
        and not any(isinstance(a, View | list | tuple) for a in given)
    )


def _evaluate_now(node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Number:
    """Compute a uniform result at compile time, with torch's own operation."""
    target: Any = node.target
    real = [torch.tensor(a.value, dtype=a.dtype) if isinstance(a, Number) else a for a in args]
    out = node.meta["val"]
    return Number(target(*real, **kwargs).item(), tuple(out.shape), out.dtype)


def program_outputs(module: GraphModule) -> Sequence[Any]:
    """List what a program returns: nodes, or None."""
    found: Any = module.graph.output_node().args[0]
    return found if isinstance(found, list | tuple) else (found,)


def fake_value(node: Node) -> Any:
    """Return the fake tensor (shape, dtype and strides, no numbers) of a node."""
    return node.meta["val"]


def operation_name(node: Node) -> str:
    """Return the operation of a node. An in-place operation has the name of its out-of-place form."""
    name = str(node.target).split(".")[1]
    return name if name.startswith("_") and not mutates_argument(node) else name.removesuffix("_")


def cast(build: KernelBuilder, name: str, old: torch.dtype, new: torch.dtype) -> str:
    """Convert a value to another dtype."""
    if old is new:
        return name
    if new is torch.bool:
        return build.compute(new, "{0} != 0", name)
    return build.compute(new, f"({c_type(new)}){{0}}", name)

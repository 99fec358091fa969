"""Operations without a handler: the program calls torch's kernel through torch's C interface.

Operands are passed in the layout that they have in the traced program: some of torch's kernels compute wrong numbers
for others, such as attention if the last dimension is not contiguous. A temporary takes the memory of torch's result
until its last use; other results are copied. A result without elements in the traced program may have some when the
program runs, such as the workspace of a recurrent layer: it goes to later operations as torch returned it.

Sources: torch's stable ABI, `torch/csrc/stable/c/shim.h` and `torch/csrc/inductor/aoti_torch/c/shim.h`.
"""

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from torchpure.jit.native.ir import Number, Opaque, UnsupportedError, View, c_type, dense_strides, literal
from torchpure.transforms.purity import operator_draws

from ._scope import Scope, fake_value
from ._torch_library import torch_library

_ABI_VERSION = 2 << 56 | 13 << 48  # version of the ABI that the generated code uses
_SHIM_FUNCTIONS = (
    "torch_call_dispatcher", "aoti_torch_create_tensor_from_blob", "aoti_torch_get_data_ptr", "aoti_torch_get_strides",
    "aoti_torch_get_sizes", "aoti_torch_get_dim", "aoti_torch_get_dtype", "aoti_torch_delete_tensor_object",
    "torch_new_list_reserve_size", "torch_list_push_back", "torch_new_stable_ivalue", "torch_new_string_handle",
    "torch_exception_get_what_without_backtrace",
)  # fmt: skip
_DTYPE_CODES = {
    torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4, torch.float32: 6, torch.float64: 7,
    torch.bool: 11,
}  # fmt: skip
_SIZED = frozenset({"_ctc_loss", "linalg_lstsq"})  # tracing has rules for their sizes, in spite of their tags


@lru_cache(maxsize=1)
def torch_functions() -> dict[str, Any] | None:
    """Return the functions of torch's C interface by name, if this torch exports all of them."""
    found = {name: getattr(torch_library(), name, None) for name in _SHIM_FUNCTIONS}
    return None if None in found.values() else found


@lru_cache(maxsize=1)
def torch_table() -> Any:
    """Return the array of function pointers that `struct Torch` describes."""
    found = torch_functions() or {}
    pointers = [ctypes.cast(found[name], ctypes.c_void_p).value for name in _SHIM_FUNCTIONS[:-1]]
    return (ctypes.c_void_p * len(pointers))(*pointers)


def last_error() -> str:
    """Return torch's message for the last operation that failed in this thread."""
    ask: Any = (torch_functions() or {})[_SHIM_FUNCTIONS[-1]]
    ask.restype = ctypes.c_char_p
    return (ask() or b"").decode(errors="replace")


def lower_to_torch_call(scope: Scope, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call torch for an operation.

    Raises:
        UnsupportedError: it draws, writes to an argument, returns a view, or has arguments or results of other types.
    """
    target: Any = node.target
    schema = target._schema
    if operator_draws(target, tuple(args), kwargs):
        raise UnsupportedError(f"the operation {target._opname}, which draws")
    _check_supported(target)
    scope.state.calls_torch = True
    writer = _ArgumentWriter(scope)
    values, traced = _arguments(schema, args, kwargs), _arguments(schema, node.args, node.kwargs)
    texts = [writer.text(value, kind, like) for (value, kind), (like, _) in zip(values, traced, strict=True)]
    outs = node.meta.get("val")
    several = isinstance(outs, tuple | list)
    made = [_result_view(scope, out) for out in (outs if several else [outs] if schema.returns else [])]
    slots = max(len(texts), len(made), 1)
    text = (
        f"uint64_t s[{slots}] = {{{', '.join(texts)}}};\n"
        f'if (torch_->call("{schema.name}", "{schema.overload_name}", s, {_ABI_VERSION}u)) return -5;'
    )
    written = tuple(view.buffer for view in made if view)
    reads = tuple(view.buffer for view in writer.views)
    scope.items.append(Opaque(text, reads, written, tables=("torch_",), results=tuple(made)))
    return made if several else made[0] if made else None


def _check_supported(target: Any) -> None:
    schema, name = target._schema, target._opname
    if torch_functions() is None:
        raise UnsupportedError("an operation of torch: torch's C interface is missing")
    if any(part.alias_info for part in (*schema.arguments, *schema.returns)):
        raise UnsupportedError(f"the operation {name}, which writes or returns a view")
    if any(str(part.type) != "Tensor" for part in schema.returns):
        raise UnsupportedError(f"the operation {name}, which returns other things than tensors")
    if name not in _SIZED and set(target.tags) & {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}:
        raise UnsupportedError(f"the operation {name}, whose shape depends on numbers")


def _arguments(schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """Yield the value and the type name of each argument."""
    for number, part in enumerate(schema.arguments):
        value = args[number] if number < len(args) else kwargs.get(part.name, part.default_value)
        kind = str(part.type)
        if kind == "List[int]" and isinstance(value, int):
            value = [value] * (part.N or 1)
        yield value, kind


class _ArgumentWriter:
    """Writes the arguments of a call, and records the views that they read."""

    def __init__(self, scope: Scope) -> None:
        self._scope, self.views = scope, list[View]()

    def text(self, value: Any, kind: str, like: Any) -> str:
        """Write the C++ expression for a value of a type. `like` is the argument in the traced program."""
        inner = _type_argument("Optional", kind)
        if inner is not None:
            return "0" if value is None else f"op_some(torch_, {self.text(value, inner, like)})"
        inner = _type_argument("List", kind)
        if inner is not None:
            parts = [self.text(part, inner, one) for part, one in zip(value, like, strict=True)]
            return f"op_list({', '.join(['torch_', *parts])})"
        if kind == "Tensor":
            return self._tensor(value, fake_value(like))
        if kind in {"int", "bool"} and isinstance(value, int):
            return f"(uint64_t){literal(value, torch.int64)}"
        if kind == "float" and isinstance(value, int | float):
            return f"op_real({literal(value, torch.float64)})"
        if kind == "str":
            return f'op_text(torch_, "{value}")'
        raise UnsupportedError(f"an argument of type {kind}")

    def _tensor(self, value: Any, traced: Tensor) -> str:
        if isinstance(value, View) and value.buffer in self._scope.state.unsized:
            self.views.append(value)
            return f"op_again(torch_, {held_name(value.buffer.slot)}, {_DTYPE_CODES[value.dtype]})"
        if not isinstance(value, View | Number):
            raise UnsupportedError("an operation of torch on something else than a tensor")
        view = self._scope.materialize(value)
        if not _same_layout(view, traced):
            view = self._scope.materialize(view, _memory_order(traced))
        self.views.append(view)
        return f"op_tensor(torch_, {view.buffer.slot} + {view.offset}, {_layout(view)})"


def _same_layout(view: View, traced: Tensor) -> bool:
    """Tell whether a view has the strides of a traced tensor. Those of dimensions of size 1 do not matter."""
    return all(size == 1 or a == b for size, a, b in zip(view.shape, view.strides, traced.stride(), strict=True))


def _memory_order(like: Tensor) -> list[int]:
    """Order the dimensions of a tensor from outermost to innermost in memory."""
    strides = like.stride()
    return sorted(range(like.ndim), key=lambda dim: (-strides[dim], dim))


def _type_argument(name: str, kind: str) -> str | None:
    return kind[len(name) + 1 : -1] if kind.startswith(f"{name}[") else None


def _layout(view: View) -> str:
    """Write rank, sizes, strides and dtype."""
    sizes, strides = (
        f"(const int64_t[]){{{', '.join(map(str, numbers)) or 0}}}" for numbers in (view.shape, view.strides)
    )
    return f"{len(view.shape)}, {sizes}, {strides}, {_DTYPE_CODES[view.dtype]}"


def _result_view(scope: Scope, out: Any) -> View | None:
    """Allocate a result with the memory order that torch will use."""
    if out is None:
        return None
    if not isinstance(out, Tensor) or out.device.type != "cpu":
        raise UnsupportedError("an operation of torch with a result of another kind")
    c_type(out.dtype)
    if out.numel() == 0:  # of unknown size, such as the workspace of a recurrent layer: only torch reads it
        made = View(scope.buffer(out.dtype, 0), tuple(out.shape), dense_strides(out.shape))
        scope.state.unsized.add(made.buffer)
        return made
    return scope.empty(out.shape, out.dtype, _memory_order(out))


def store_results(item: Opaque) -> list[str]:
    """Write what happens to the results of a call: a buffer takes the memory of torch's tensor, or gets a copy."""
    results = item.results
    lines = ["bool same = true;"] if results else []
    if any(view and view.buffer.held for view in results):
        operands = [f"{{{b.name}, {b.size * b.dtype.itemsize}}}" for b in item.read_buffers]
        lines.append(f"const Range operands[] = {{{', '.join([*operands, '{0, 0}'])}}};")
    for number, view in enumerate(results):
        if view and not view.buffer.size and view.buffer.held:
            lines.append(f"op_keep(s[{number}], {held_name(view.buffer.name)});")
        elif view is None or not view.buffer.size:
            lines.append(f"torch_->drop((void *)s[{number}]);")
        elif view.buffer.held:
            name = view.buffer.name
            lines.append(f"same &= op_hold(torch_, s[{number}], {held_name(name)}, {name}, operands, {_layout(view)});")
        else:
            lines.append(f"same &= op_take(torch_, s[{number}], {view.buffer.name} + {view.offset}, {_layout(view)});")
    return [*lines, "if (!same) return -6;"] if results else lines


def held_name(buffer_name: str) -> str:
    """Return the name of the C++ variable that keeps the memory of a buffer alive."""
    return f"{buffer_name}_held"

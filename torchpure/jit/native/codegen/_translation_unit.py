"""The C++ of a whole program."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from torchpure.jit.native.ir import Buffer, Kernel, Number, UnsupportedError, View, c_type, dense_strides
from torchpure.jit.native.lowering import LIBRARY_TYPES, PRELUDE, TORCH, TRANSPOSE, VECTORS, Handler, Program, Scope
from torchpure.jit.native.optimize import planned

from ._statements import Writer

_ARENA = "struct Arena { char *memory = 0; ~Arena() { free(memory); } };"
_TURNS = 1 << 20  # of all kernels of a program
_KEPT = 1 << 26  # bytes of workspace that a thread keeps from call to call
_HEAD = 'extern "C" int run(void **inputs, void **outputs, void **constants, int (*hook)(int, void **)) {'


class Lowered(NamedTuple):
    """A program in C++."""

    source: str
    program: Program  # constants, callbacks and messages
    outputs: list[Any]  # a View for each tensor that is made, the number of an input that comes back, else a constant


def lowered(module: GraphModule, tensors: Sequence[Tensor], rest: Handler | None = None) -> Lowered:
    """Write the C++ of a program; `rest` serves operations without a handler.

    Raises:
        UnsupportedError: it holds something that is not known here.
    """
    program = Program(rest)
    scope = Scope(program, module)
    inputs = [_input(program, leaf) for leaf in tensors]
    outputs = [_output(program, scope, inputs, result) for result in scope.run(inputs)]
    if not scope.loops and sum(prod(item.sizes) for item in scope.items if isinstance(item, Kernel)) > _TURNS:
        raise UnsupportedError("much work without a loop: several threads are worth their while")
    size = planned(scope)
    writer = Writer()
    writer.scope(scope)
    made = [output for output in outputs if isinstance(output, View)]
    held = [program.constant_views[id(leaf)] for leaf in program.constants]
    pointers = [
        _pointer(view.buffer, array, place)
        for array, views in (("inputs", inputs), ("outputs", made), ("constants", held))
        for place, view in enumerate(views)
    ]
    if program.uses_library:
        pointers += [f"  {c}gemm {c}gemm_ = ({c}gemm)constants[{len(held) + i}];" for i, c in enumerate("sd")]
    if program.calls_torch:
        pointers.append(f"  const Torch *torch_ = (const Torch *)constants[{len(held) + 2 * program.uses_library}];")
    lines = [
        _HEAD,
        "  int bad = 0; (void)bad;",
        *pointers,
        *_workspace(size, program.reenters),
        *writer.out.text,
        "  return bad & 1 ? -2 : bad ? -4 : 0;",
        "}",
    ]
    needed = [PRELUDE, VECTORS, TRANSPOSE, LIBRARY_TYPES, *([TORCH] if program.calls_torch else []), _ARENA]
    return Lowered("\n".join([*needed, *lines, ""]), program, outputs)


def _workspace(size: int, reenters: bool) -> list[str]:
    """Write where the workspace comes from: kept between calls, unless it is large or Python may call from within."""
    bytes_ = max(-(-size // 64) * 64, 64)
    return [
        f"  {'static thread_local ' if bytes_ <= _KEPT and not reenters else ''}Arena arena;",
        f"  if (!arena.memory && !(arena.memory = (char *)aligned_alloc(64, {bytes_}))) return -3;",
        "  char *work = arena.memory; (void)work;",
    ]


def _input(program: Program, leaf: Tensor) -> View:
    if leaf.device.type != "cpu" or leaf.layout is not torch.strided:
        raise UnsupportedError(f"tensors on {leaf.device}")
    c_type(leaf.dtype)
    made = Buffer(program.names.new("x"), leaf.dtype, max(leaf.numel(), 1), temporary=False)
    return View(made, tuple(leaf.shape), tuple(leaf.stride()))


def _output(program: Program, scope: Scope, inputs: list[View], result: Any) -> Any:
    """Copy a result to memory of its own; an input that comes back as it is needs none."""
    if not isinstance(result, View | Number):
        return result
    if isinstance(result, View) and result in inputs:
        return inputs.index(result)
    size = max(1, torch.Size(result.shape).numel())
    made = Buffer(program.names.new("o"), result.dtype, size, temporary=False)
    view = View(made, result.shape, dense_strides(result.shape))
    scope.copy(result, view)
    return view


def _pointer(buffer: Buffer, array: str, place: int) -> str:
    c = c_type(buffer.dtype)
    return f"  {c} *{buffer.name} = ({c} *){array}[{place}]; (void){buffer.name};"

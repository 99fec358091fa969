"""Write the C++ translation unit of a whole program: helper functions, and the function `run`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure.jit.native.ir import Buffer, Number, UnsupportedError, View, c_type, layout_strides
from torchpure.jit.native.lowering import (
    BLAS_TYPES,
    PRELUDE,
    TRANSPOSE_HELPERS,
    VECTOR_TYPES,
    Handler,
    ModuleState,
    Scope,
    program_outputs,
)
from torchpure.jit.native.optimize import choose_donated, plan_memory

from ._functions import MAX_INLINE_KERNELS, SHARE, count_kernels
from ._signals import LEAVE, POLL
from ._statements import StatementWriter
from ._torch_helpers import TORCH_HELPERS

_ARENA = "struct Arena { char *memory = 0; ~Arena() { free(memory); } };"
MAX_OWN_WORKSPACE = 1 << 20  # bytes that a program keeps for itself between calls; a larger workspace is given to it
_HEAD = 'extern "C" int run(void **inputs, void **outputs, void **constants, int (*hook)(int, void **)) {'


class TranslationUnit(NamedTuple):
    """A program in C++."""

    source: str
    state: ModuleState  # constants, callbacks, messages of checks
    outputs: list[Any]  # per output: a View of new memory, the position of a returned input, or a constant
    overwritten: dict[int, int]  # output -> the donated input whose memory it takes
    workspace: int  # bytes of temporaries


def generate_cpp(
    module: GraphModule,
    tensors: Sequence[Tensor],
    donated: Mapping[int, int] | None = None,
    fallback: Handler | None = None,
    traced: GraphModule | None = None,
) -> TranslationUnit:
    """Lower, optimize and write a program in C++. `fallback` lowers operations without a handler.

    Results have the strides that they have in `traced`, the program before it was decomposed.

    `donated` maps outputs to inputs whose memory they may take, in any order. They do where that changes no result.

    Raises:
        UnsupportedError: the generator does not support the program.
    """
    state, scope, inputs, outputs = lower_program(module, tensors, fallback, traced)
    size = plan_memory(scope)
    writer = StatementWriter(inline=count_kernels(scope.items) <= MAX_INLINE_KERNELS)
    writer.scope(scope)
    state.shares_work, state.polls = writer.shares_work, writer.polls
    overwritten = choose_donated(
        {at: inputs[at] for at in (donated or {}).values()},
        {output: outputs[output] for output in donated or {} if isinstance(outputs[output], View)},
        scope.items,
    )
    place = sum(isinstance(output, View) for output in outputs)  # of the workspace that is given, behind the outputs
    pointers = [*_pointers(state, inputs, outputs), *_workspace(size, state.may_reenter or writer.polls, place)]
    return TranslationUnit(_source(state, writer, pointers), state, outputs, overwritten, size)


def _source(state: ModuleState, writer: StatementWriter, pointers: Sequence[str]) -> str:
    """Put the helper functions that a program needs before it, and the declarations of its pointers into it."""
    helpers = [
        PRELUDE,
        VECTOR_TYPES,
        TRANSPOSE_HELPERS,
        BLAS_TYPES,
        *([TORCH_HELPERS] if state.calls_torch else []),
        _ARENA,
        *([SHARE] if state.shares_work else []),
        *([POLL] if state.polls else []),
        *writer.functions.text,
    ]
    run = [
        _HEAD,
        "  int bad = 0; (void)bad;",
        *pointers,
        *writer.out.text,
        f"  {LEAVE}",
        "  return 0;",
        "}",
    ]
    return "\n".join([*helpers, *run, ""])


class LoweredProgram(NamedTuple):
    """A program as kernels."""

    state: ModuleState
    scope: Scope
    inputs: list[View]
    outputs: list[Any]


def lower_program(
    module: GraphModule,
    tensors: Sequence[Tensor],
    fallback: Handler | None = None,
    traced: GraphModule | None = None,
) -> LoweredProgram:
    """Lower every node, and copy the results to the outputs.

    Raises:
        UnsupportedError: the generator does not support the program.
    """
    state = ModuleState(fallback)
    scope = Scope(state, module)
    inputs = [_input_view(state, leaf) for leaf in tensors]
    outputs = [
        _output_value(state, scope, inputs, result, node.meta.get("val") if isinstance(node, Node) else None)
        for result, node in zip(scope.lower(inputs), program_outputs(traced or module), strict=True)
    ]
    return LoweredProgram(state, scope, inputs, outputs)


def _pointers(state: ModuleState, inputs: Sequence[View], outputs: Sequence[Any]) -> list[str]:
    """Write the declarations of pointers to inputs, outputs and constants. Function pointers follow the constants."""
    made = [output for output in outputs if isinstance(output, View)]
    constants = [state.constant_views[id(leaf)] for leaf in state.constants]
    pointers = [
        _declare_pointer(view.buffer, array, place)
        for array, views in (("inputs", inputs), ("outputs", made), ("constants", constants))
        for place, view in enumerate(views)
    ]
    if state.uses_blas:
        pointers += [f"  {c}gemm {c}gemm_ = ({c}gemm)constants[{len(constants) + i}];" for i, c in enumerate("sd")]
    place = len(constants) + 2 * state.uses_blas
    if state.calls_torch:
        pointers.append(f"  const Torch *torch_ = (const Torch *)constants[{place}];")
    if state.polls:
        pointers.append(f"  const Python *python_ = (const Python *)constants[{place + state.calls_torch}];")
    if state.shares_work:
        last = place + state.calls_torch + state.polls
        pointers.append(f"  const Parallel parallel_ = (Parallel)constants[{last}];")
    return pointers


def _workspace(size: int, reenters: bool, place: int) -> list[str]:
    """Write how a program gets its workspace: a small one is its own, and a thread keeps it; a large one is given."""
    if size > MAX_OWN_WORKSPACE:
        return [f"  char *work = (char *)outputs[{place}];"]
    bytes_ = max(-(-size // 64) * 64, 64)
    return [
        f"  {'' if reenters else 'static thread_local '}Arena arena;",
        f"  if (!arena.memory && !(arena.memory = (char *)aligned_alloc(64, {bytes_}))) return -3;",
        "  char *work = arena.memory; (void)work;",
    ]


def _input_view(state: ModuleState, leaf: Tensor) -> View:
    if leaf.device.type != "cpu" or leaf.layout is not torch.strided:
        raise UnsupportedError(f"tensors on {leaf.device}")
    c_type(leaf.dtype)
    made = Buffer(state.names.new("x"), leaf.dtype, max(leaf.numel(), 1), temporary=False)
    return View(made, tuple(leaf.shape), tuple(leaf.stride()))


def _output_value(state: ModuleState, scope: Scope, inputs: list[View], result: Any, traced: Any) -> Any:
    """Copy a result to memory of its own, laid out as traced. An input that is returned unchanged needs none."""
    if not isinstance(result, View | Number):
        return result
    if isinstance(result, View) and result in inputs:
        return inputs.index(result)
    size = max(1, torch.Size(result.shape).numel())
    made = Buffer(state.names.new("o"), result.dtype, size, temporary=False)
    view = View(made, result.shape, layout_strides(traced))
    scope.copy(result, view)
    return view


def _declare_pointer(buffer: Buffer, array: str, place: int) -> str:
    c = c_type(buffer.dtype)
    return f"  {c} *{buffer.name} = ({c} *){array}[{place}]; (void){buffer.name};"

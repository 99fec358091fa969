"""The inductor backend: compile programs without loops with torch's inductor."""

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import CO_VARARGS
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._collector import gc_resumed
from torchpure._cpp import CompilerError
from torchpure._progress import stage
from torchpure._torch import FakeTensorMode, TracingContext, tracing
from torchpure.jit.passes import (
    constants,
    copy_program,
    example_tensor,
    hoist_scalars,
    placeholders,
    results,
    split_at_peak,
)
from torchpure.transforms.rules import recomputation_of

from ._inductor_cache import Boxed, load, program_key, save
from ._inductor_formulas import with_exact_formulas
from ._protocol import Compile

_NO_COMPILER = frozenset({"InvalidCxxCompiler", "CppCompileError", "CxxCompileError"})


class InductorProgram:
    """A program compiled by inductor. It changes no tensor, unless the program itself does."""

    def __init__(self, run: Any, constants: list[Tensor], source: str) -> None:
        self._run, self._constants, self.source, self.reason = run, constants, source, ""

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        """Run the program."""
        return self._run(*tensors, *self._constants)


def compile_program(module: GraphModule, tensors: Sequence[Tensor], compile_scalars: Compile) -> InductorProgram:
    """Compile a program of torch operations; `compile_scalars` compiles its scalar part separately.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    program = copy_program(module)
    held_tensors = _lift_constants(program)
    inputs = [*tensors, *held_tensors]
    parts = hoist_scalars(program)
    if parts is None:
        run, source = _compile_split(program, inputs)
        return InductorProgram(run, held_tensors, source)
    numbers = compile_scalars(parts.scalars, [inputs[place] for place in parts.reads])
    scalar_examples = [example_tensor(node) for node in placeholders(parts.rest)[len(inputs) :]]
    run, source = _compile_split(parts.rest, [*inputs, *scalar_examples])

    reads = parts.reads

    def both(*tensors: Tensor) -> Sequence[Any]:
        return run(*tensors, *numbers(*[tensors[place] for place in reads]))

    return InductorProgram(both, held_tensors, f"{numbers.source}\n{source}")


def _compile_split(module: GraphModule, tensors: Sequence[Tensor]) -> tuple[Any, str]:
    """Compile a program, in two parts if that saves memory. Values that cross are freed after their last use."""
    split = split_at_peak(module)
    if split is None:
        return _compile_cached(module, tensors)
    parts = split  # a name that type checkers know is not None inside `both`
    first, first_source = _compile_cached(parts.first, [tensors[i] for i in parts.first_reads])
    given = [*tensors, *map(example_tensor, results(parts.first))]
    second, second_source = _compile_cached(parts.second, [given[i] for i in parts.second_reads])
    first, second = _box(first), _box(second)
    result_set = {pick for pick in parts.result_positions if pick is not None}

    def both(*tensors: Tensor) -> Sequence[Any]:
        crossing = list(first([tensors[i] for i in parts.first_reads]))
        values = dict(enumerate([*tensors, *crossing]))
        given = [values[i] for i in parts.second_reads]
        end = len(tensors) + len(crossing)
        crossing.clear()
        for i in range(len(tensors), end):
            if i not in result_set:
                del values[i]
        out = second(given)
        values.update(enumerate(out, start=end))
        return [None if pick is None else values[pick] for pick in parts.result_positions]

    return both, f"{first_source}\n{second_source}"


def _box(run: Any) -> Any:
    """Return a function that takes a list and empties it, so that arguments are freed after their last use."""
    inner = run
    while _takes_many(inner) and hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    return inner if getattr(inner, "_boxed_call", False) and not _takes_many(inner) else lambda given: run(*given)


def _takes_many(run: Any) -> bool:
    return bool(getattr(getattr(run, "__code__", None), "co_flags", CO_VARARGS) & CO_VARARGS)


def _compile_cached(module: GraphModule, tensors: Sequence[Tensor]) -> tuple[Any, str]:
    options = _options(module, tensors)
    with _compiler_errors():
        key = program_key(module, tensors, options)
        cached = None if key is None else load(key, options)
        if cached is not None:
            return _unbox(cached[0]), cached[1]
        graphs, meta, run = _run_inductor(module, tensors, options)
    if key is not None:
        save(key, graphs, tensors, meta)
    return run, "\n".join(getattr(graph, "source_code", "") for graph in graphs)


def _run_inductor(
    module: GraphModule, tensors: Sequence[Tensor], options: dict[str, Any]
) -> tuple[list[Any], Any, Any]:
    """Return the compiled graphs, torch's metadata about results, and the function that runs both."""
    from torchpure._torch import inductor  # takes seconds to import

    stage(f"inductor, {len(module.graph.nodes):,} operations")

    graphs: list[Any] = []

    def inner(*args: Any, **kwargs: Any) -> Any:
        graphs.append(inductor.compile_fx_inner(*args, **kwargs))
        return graphs[-1]

    mode = FakeTensorMode(shape_env=inductor.ShapeEnv(), allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(leaf.detach(), static_shapes=True) for leaf in tensors]
    context = TracingContext(mode)
    with tracing(context):
        table = inductor.select_decomp_table()
        if all(leaf.device.type == "cpu" for leaf in tensors):
            table = with_exact_formulas(table)
        run = inductor.compile_fx(module, fakes, inner_compile=inner, config_patches=options, decompositions=table)
    return graphs, context.fw_metadata, run


def _unbox(call: Boxed) -> Any:
    """Return a function of tensors, from a function that takes a list of tensors."""

    def boxed(given: list[Tensor]) -> Sequence[Any]:
        with torch.no_grad():
            return call(given)

    def run(*tensors: Tensor) -> Sequence[Any]:
        return boxed(list(tensors))

    boxed._boxed_call, run.__wrapped__ = True, boxed  # pyrefly: ignore[missing-attribute] torch marks its functions so
    return run


@contextmanager
def _compiler_errors() -> Iterator[None]:
    """Disable gradients and warnings, and turn a missing or failing compiler into a CompilerError."""
    try:
        with torch.no_grad(), gc_resumed(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # inductor calls deprecated functions of torch
            yield
    except Exception as error:
        if _NO_COMPILER.isdisjoint(_error_names(error)):
            raise
        raise CompilerError(f"jit: {error!s:.2000}") from error


def _options(module: GraphModule, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return inductor settings for this program: no cache that unpickles, and the current compiler."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), "g++")
    options: dict[str, Any] = {"fx_graph_cache": False, "fx_graph_remote_cache": False, "cpp.cxx": (None, compiler)}
    if all(leaf.device.type == "cpu" for leaf in tensors):
        options["emulate_precision_casts"] = True  # else float16 and bfloat16 are rounded at stores alone
    if any(recomputation_of(node)[0] is not None for node in module.graph.nodes):
        options["reorder_for_locality"] = False  # it would move the gradients of parameters to the end
    return options


def _lift_constants(module: GraphModule) -> list[Tensor]:
    """Turn the constants of a program into inputs: inductor would write small ones into the code."""
    lifted: dict[int, tuple[Tensor, Node]] = {}
    for node, tensor in list(constants(module)):
        if id(tensor) not in lifted:
            with module.graph.inserting_before(_first_operation(module)):
                lifted[id(tensor)] = (tensor, module.graph.placeholder(f"held_{len(lifted)}"))
        node.replace_all_uses_with(lifted[id(tensor)][1])
        module.graph.erase_node(node)
    module.recompile()
    return [tensor for tensor, _ in lifted.values()]


def _first_operation(module: GraphModule) -> Node:
    return next(node for node in module.graph.nodes if node.op != "placeholder")


def _error_names(error: BaseException | None) -> list[str]:
    """List the class names of an error and of its causes."""
    found = []
    while error is not None:
        found.extend([type(error).__name__, type(getattr(error, "inner_exception", None)).__name__])
        error = error.__cause__ or error.__context__
    return found

"""Programs without loops, compiled by torch's inductor."""

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

from torchpure._collector import collected
from torchpure._torch import FakeTensorMode, TracingContext, tracing
from torchpure.jit.passes import constants, copied, example, halves, placeholders, results, split
from torchpure.transforms.rules import runs

from ._disk_cache import CompilerError
from ._inductor_cache import Boxed, load, program_key, save
from ._protocol import Compile

_NO_COMPILER = frozenset({"InvalidCxxCompiler", "CppCompileError", "CxxCompileError"})


class Inductor:
    """A compiled program: a function of tensors that changes none of them, unless it was made to."""

    def __init__(self, run: Any, constants: list[Tensor], source: str) -> None:
        self._run, self._constants, self.source = run, constants, source

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        """Run the program."""
        return self._run(*tensors, *self._constants)


def compiled(module: GraphModule, tensors: Sequence[Tensor], small: Compile) -> Inductor:
    """Compile a program of torch's operations, all of them inductor's to know; `small` compiles its numbers apart.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    own = copied(module)
    held = _lifted(own)
    given = [*tensors, *held]
    parts = split(own)
    if parts is None:
        run, source = _in_halves(own, given)
        return Inductor(run, held, source)
    numbers = small(parts.scalars, [given[place] for place in parts.reads])
    rest = [example(node) for node in placeholders(parts.rest)[len(given) :]]
    run, source = _in_halves(parts.rest, [*given, *rest])

    reads = parts.reads

    def both(*tensors: Tensor) -> Sequence[Any]:
        return run(*tensors, *numbers(*[tensors[place] for place in reads]))

    return Inductor(both, held, f"{numbers.source}\n{source}")


def _in_halves(module: GraphModule, tensors: Sequence[Tensor]) -> tuple[Any, str]:
    """Compile a program, in two halves if that spares memory; what crosses is freed as soon as it has been used."""
    found = halves(module)
    if found is None:
        return _compiled(module, tensors)
    parts = found  # never None in the function below
    first, one = _compiled(parts.first, [tensors[i] for i in parts.first_reads])
    given = [*tensors, *map(example, results(parts.first))]
    second, two = _compiled(parts.second, [given[i] for i in parts.second_reads])
    first, second = _boxed(first), _boxed(second)
    kept = {pick for pick in parts.picks if pick is not None}

    def both(*tensors: Tensor) -> Sequence[Any]:
        crossing = list(first([tensors[i] for i in parts.first_reads]))
        known = dict(enumerate([*tensors, *crossing]))
        given = [known[i] for i in parts.second_reads]
        end = len(tensors) + len(crossing)
        crossing.clear()
        for i in range(len(tensors), end):
            if i not in kept:
                del known[i]
        out = second(given)
        known.update(enumerate(out, start=end))
        return [None if pick is None else known[pick] for pick in parts.picks]

    return both, f"{one}\n{two}"


def _boxed(run: Any) -> Any:
    """Return a function of a list of arguments, which it empties, so that they are freed once they are not needed."""
    inner = run
    while _takes_many(inner) and hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    return inner if getattr(inner, "_boxed_call", False) and not _takes_many(inner) else lambda given: run(*given)


def _takes_many(run: Any) -> bool:
    return bool(getattr(getattr(run, "__code__", None), "co_flags", CO_VARARGS) & CO_VARARGS)


def _compiled(module: GraphModule, tensors: Sequence[Tensor]) -> tuple[Any, str]:
    options = _options(module)
    with _compiling():
        key = program_key(module, tensors, options)
        found = None if key is None else load(key, options)
        if found is not None:
            return _unboxed(found[0]), found[1]
        graphs, meta, run = _made(module, tensors, options)
    if key is not None:
        save(key, graphs, tensors, meta)
    return run, "\n".join(getattr(graph, "source_code", "") for graph in graphs)


def _made(module: GraphModule, tensors: Sequence[Tensor], options: dict[str, Any]) -> tuple[list[Any], Any, Any]:
    """Return what inductor makes, what torch found out about results, and a function around both."""
    from torchpure._torch import inductor  # takes seconds to import

    graphs: list[Any] = []

    def inner(*args: Any, **kwargs: Any) -> Any:
        graphs.append(inductor.compile_fx_inner(*args, **kwargs))
        return graphs[-1]

    mode = FakeTensorMode(shape_env=inductor.ShapeEnv(), allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(leaf.detach(), static_shapes=True) for leaf in tensors]
    context = TracingContext(mode)
    with tracing(context):
        run = inductor.compile_fx(module, fakes, inner_compile=inner, config_patches=options)
    return graphs, context.fw_metadata, run


def _unboxed(call: Boxed) -> Any:
    """Return a function of tensors, of one of a list of them."""

    def boxed(given: list[Tensor]) -> Sequence[Any]:
        with torch.no_grad():
            return call(given)

    def run(*tensors: Tensor) -> Sequence[Any]:
        return boxed(list(tensors))

    boxed._boxed_call, run.__wrapped__ = True, boxed  # pyrefly: ignore[missing-attribute] as torch marks its own
    return run


@contextmanager
def _compiling() -> Iterator[None]:
    """Compile without gradients, and say so where there is no compiler."""
    try:
        with torch.no_grad(), collected(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # inductor calls what torch has deprecated
            yield
    except Exception as error:
        if _NO_COMPILER.isdisjoint(_names(error)):
            raise
        raise CompilerError(f"jit: {error!s:.2000}") from error


def _options(module: GraphModule) -> dict[str, Any]:
    """Return settings for this program alone: no cache that unpickles, and the compiler that is set now."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), "g++")
    own: dict[str, Any] = {"fx_graph_cache": False, "fx_graph_remote_cache": False, "cpp.cxx": (None, compiler)}
    if any(runs(node)[0] is not None for node in module.graph.nodes):
        own["reorder_for_locality"] = False  # it computes gradients of parameters last of all
    return own


def _lifted(module: GraphModule) -> list[Tensor]:
    """Make inputs of the tensors that a program holds, because inductor would write down the numbers of small ones."""
    held: dict[int, tuple[Tensor, Node]] = {}
    for node, tensor in list(constants(module)):
        if id(tensor) not in held:
            with module.graph.inserting_before(_first_operation(module)):
                held[id(tensor)] = (tensor, module.graph.placeholder(f"held_{len(held)}"))
        node.replace_all_uses_with(held[id(tensor)][1])
        module.graph.erase_node(node)
    module.recompile()
    return [tensor for tensor, _ in held.values()]


def _first_operation(module: GraphModule) -> Node:
    return next(node for node in module.graph.nodes if node.op != "placeholder")


def _names(error: BaseException | None) -> list[str]:
    """List the kinds of an error and of those that caused it."""
    found = []
    while error is not None:
        found.extend([type(error).__name__, type(getattr(error, "inner_exception", None)).__name__])
        error = error.__cause__ or error.__context__
    return found

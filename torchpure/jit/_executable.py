"""A compiled program with all that a call needs: output structure, captured tensors, and donation."""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure import tree
from torchpure.jit import backends
from torchpure.jit.backends import CompiledProgram, CompilerError
from torchpure.jit.passes import (
    attribute,
    eliminate_common_subexpressions,
    fake_value,
    has_control_flow,
    hoist_loop_invariants,
    peak_memory,
    placeholders,
    results,
)

from ._cache_key import CallArguments
from ._donation import check_donated, ensure_exclusive, invalidate, match_donated, move_memory, write_into_donated
from ._trace import Trace

_requires_grad = attrgetter("requires_grad")
_MIN_DONATED_BYTES = 1 << 20  # below this size of results, writing into donated memory gains nothing


def run_passes(module: GraphModule) -> GraphModule:
    """Run all passes over a traced program."""
    program = eliminate_common_subexpressions(module)
    return hoist_loop_invariants(program) if has_control_flow(program) else program


class Executable:
    """A compiled function of tensors. It returns the results in the structure of the traced function."""

    def __init__(
        self, function_name: str, trace: Trace, run: Callable[..., Sequence[Any]], donated: Sequence[int]
    ) -> None:
        self._function_name, self._run, self._donated = function_name, run, donated
        self._pairs: dict[int, int] = {}
        self._outputs, self._captured = trace.outputs, trace.captures.tensors
        self.stale = trace.captures.stale
        if donated:
            self.run = self._run_donated

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Run the program."""
        return self._outputs.unflatten(self._run(*tensors))

    def captures_require_grad(self) -> bool:
        """Tell whether a captured tensor requires grad."""
        return any(map(_requires_grad, self._captured))

    def set_donation_pairs(self, pairs: dict[int, int]) -> None:
        """Record which result the program writes into which input."""
        self._pairs = pairs

    def _run_donated(self, tensors: Sequence[Tensor]) -> Any:
        check_donated(self._function_name, tensors, self._donated)
        inputs = list(tensors)
        for position in self._pairs.values():
            inputs[position] = ensure_exclusive(inputs[position])
        try:
            out = list(self._run(*inputs))
        except BaseException:
            for position in self._pairs.values():  # the program may have overwritten them before it failed
                if inputs[position] is tensors[position]:
                    invalidate(self._function_name, tensors[position])
            raise
        moved: dict[int, Tensor] = {}
        for result, leaf in enumerate(out):
            position = next((i for i in self._donated if leaf is tensors[i]), self._pairs.get(result))
            if position is not None and inputs[position] is tensors[position]:
                if position not in moved:
                    moved[position] = move_memory(self._function_name, tensors[position])
                out[result] = moved[position]
        for position in self._donated:
            if position not in moved:
                invalidate(self._function_name, tensors[position])
        return self._outputs.unflatten(out)


class EagerFallback:
    """A function that runs in eager mode, because there is no working compiler."""

    def __init__(self, function_name: str, fn: Callable[..., Any], call: CallArguments, donated: Sequence[int]) -> None:
        self._function_name, self._fn, self._donated = function_name, fn, donated
        self._build_arguments = call.argument_builder()

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Run the function."""
        check_donated(self._function_name, tensors, self._donated)
        args, kwargs = self._build_arguments(tensors)
        out = self._fn(*args, **kwargs)
        return self._invalidate_donated(out, tensors) if self._donated else out

    def _invalidate_donated(self, out: Any, tensors: Sequence[Tensor]) -> Any:
        """Make donated tensors unusable, unless a backward pass may still read them."""
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree.leaves(out)):
            return out
        inputs = [tensors[position] for position in self._donated]
        new = {id(leaf): leaf.detach() for leaf in inputs}
        out = tree.map(lambda leaf: new.get(id(leaf), leaf), out)
        for leaf in inputs:
            invalidate(self._function_name, leaf)
        return out

    def stale(self) -> bool:
        """Never stale: the function itself runs."""
        return False

    def captures_require_grad(self) -> bool:
        """Return False: the function itself runs, so autograd sees its captured tensors."""
        return False


def compile_trace(function_name: str, trace: Trace, tensors: Sequence[Tensor], donated: Sequence[int]) -> Executable:
    """Compile a traced function.

    A program that only picks inputs and constants is not compiled. A program with large donated inputs writes
    results into them.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    module = run_passes(trace.module)
    trivial = _trivial_program(module)
    if trivial is not None:
        return Executable(function_name, trace, trivial, donated)
    pairs = match_donated(module, donated)
    size = sum(fake_value(placeholders(module)[position]).nbytes for position in pairs.values())
    if size < _MIN_DONATED_BYTES:
        return Executable(function_name, trace, backends.compile_program(module, tensors), donated)
    native = backends.compile_native(module, tensors, pairs)
    if isinstance(native, str):
        run: CompiledProgram = backends.compile_without_native(write_into_donated(module, pairs), tensors, native)
    else:
        run, pairs = native, native.overwritten
    executable = Executable(function_name, trace, run, donated)
    executable.set_donation_pairs(pairs)
    return executable


def compile_native_or_measure(
    function_name: str, trace: Trace, tensors: Sequence[Tensor], max_bytes: int
) -> Executable | int:
    """Compile a traced function with the native backend, or return its peak memory in bytes.

    A native program that needs more than `max_bytes` is not taken.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    module = run_passes(trace.module)
    run = "" if _trivial_program(module) else backends.compile_native(module, tensors)
    if isinstance(run, str) or run.workspace > max_bytes:
        return peak_memory(module)
    return Executable(function_name, trace, run, ())


def _trivial_program(module: GraphModule) -> Callable[..., list[Any]] | None:
    """Return a function that picks the results, if the program computes nothing; else None."""
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    if not all(map(_copies_constant, calls)):
        return None
    copies: dict[Any, Any] = {node: node.args[0] for node in calls}
    inputs = {node: position for position, node in enumerate(placeholders(module))}
    out = results(module)
    if out == list(inputs):
        return lambda *tensors: list(tensors)
    constants = {node: attribute(module, copies.get(node, node)) for node in {*out} - {*inputs}}

    def run(*tensors: Tensor) -> list[Any]:
        constant_values = {node: leaf.clone() if node in copies else leaf for node, leaf in constants.items()}
        return [tensors[inputs[node]] if node in inputs else constant_values[node] for node in out]

    return run


def _copies_constant(node: Node) -> bool:
    """Tell whether a node clones a constant of the program, and does nothing else."""
    source: Any = node.args[0] if node.args else None
    return node.target is torch.ops.aten.clone.default and source.op == "get_attr" and not node.kwargs


def warn_uncompiled(error: CompilerError) -> None:
    """Warn once per message that functions run uncompiled."""
    _warn(str(error))


@lru_cache(maxsize=64)
def _warn(why: str) -> None:
    warnings.warn(
        f"{why} Functions run uncompiled, as if jit were not used. Install a compiler (apt-get install g++), or set "
        "CXX to one",
        stacklevel=7,
    )

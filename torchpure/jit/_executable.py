"""A compiled function: a program, the tree of its results, and the captured tensors that it was made for."""

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
from torchpure.jit.backends import CompilerError
from torchpure.jit.passes import attribute, duplicates, has_loops, loop_invariant, peak, placeholders, results, value

from ._cache_key import Call
from ._donation import check_donated, give_up, own, pairs, taken, written_over
from ._trace import Trace

_requires_grad = attrgetter("requires_grad")
_LARGE = 1 << 20  # bytes of results from which on it is worth to write over donated memory


def passed(module: GraphModule) -> GraphModule:
    """Run all passes."""
    return loop_invariant(duplicates(module))


class Compiled:
    """A function of tensors, whose results are a tree."""

    def __init__(self, who: str, trace: Trace, run: Callable[..., Sequence[Any]], donated: Sequence[int]) -> None:
        self._who, self._run, self._donated = who, run, donated
        self._pairs: dict[int, int] = {}
        self._outputs, self._captured = trace.outputs, trace.captures.tensors
        self.stale = trace.captures.stale
        if donated:
            self.run = self._run_donated

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Run the program."""
        return self._outputs.unflatten(self._run(*tensors))

    def asks(self) -> bool:
        """Tell whether a captured tensor requires grad."""
        return any(map(_requires_grad, self._captured))

    def writes(self, found: dict[int, int]) -> None:
        """Take note that the program writes results into inputs."""
        self._pairs = found

    def _run_donated(self, tensors: Sequence[Tensor]) -> Any:
        check_donated(self._who, tensors, self._donated)
        given = list(tensors)
        for place in self._pairs.values():
            given[place] = own(given[place])
        out = list(self._run(*given))
        moved: dict[int, Tensor] = {}
        for number, leaf in enumerate(out):
            place = next((i for i in self._donated if leaf is tensors[i]), self._pairs.get(number))
            if place is not None and given[place] is tensors[place]:
                if place not in moved:
                    moved[place] = taken(self._who, tensors[place])
                out[number] = moved[place]
        for place in self._donated:
            if place not in moved:
                give_up(self._who, tensors[place])
        return self._outputs.unflatten(out)


class Uncompiled:
    """A function that runs as it is, because nothing could compile it."""

    def __init__(self, who: str, fn: Callable[..., Any], call: Call, donated: Sequence[int]) -> None:
        self._who, self._fn, self._arguments, self._donated = who, fn, call.without_tensors(), donated

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Run the function."""
        check_donated(self._who, tensors, self._donated)
        args, kwargs = self._arguments(tensors)
        out = self._fn(*args, **kwargs)
        return self._moved(out, tensors) if self._donated else out

    def _moved(self, out: Any, tensors: Sequence[Tensor]) -> Any:
        """Leave donated tensors without use, unless a backward pass may read them."""
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree.leaves(out)):
            return out
        given = [tensors[place] for place in self._donated]
        new = {id(leaf): leaf.detach() for leaf in given}
        out = tree.map(lambda leaf: new.get(id(leaf), leaf), out)
        for leaf in given:
            give_up(self._who, leaf)
        return out

    def stale(self) -> bool:
        """Tell that it is of use forever."""
        return False

    def asks(self) -> bool:
        """Tell that it may run always."""
        return False


def compile_trace(who: str, trace: Trace, tensors: Sequence[Tensor], donated: Sequence[int]) -> Compiled:
    """Compile a traced function.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    module = passed(trace.module)
    direct = _direct(module)
    if direct is not None:
        return Compiled(who, trace, direct, donated)
    found = pairs(module, donated)
    size = sum(value(placeholders(module)[place]).nbytes for place in found.values())
    if size < _LARGE:
        return Compiled(who, trace, backends.compiled(module, tensors), donated)
    run = backends.native(module, tensors) if has_loops(module) else None  # it is fast, and writes new memory
    if run is not None:
        return Compiled(who, trace, run, donated)
    made = Compiled(who, trace, backends.without_native(written_over(module, found), tensors), donated)
    made.writes(found)
    return made


def compile_natively(who: str, trace: Trace, tensors: Sequence[Tensor]) -> Compiled | int:
    """Compile a traced function as one program of C++; where that cannot be, return what it needs of memory.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    module = passed(trace.module)
    run = None if _direct(module) else backends.native(module, tensors)
    return peak(module) if run is None else Compiled(who, trace, run, ())


def _direct(module: GraphModule) -> Callable[..., list[Any]] | None:
    """Return what picks the results of a program that computes nothing; None for others."""
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    if not all(map(_copies_constant, calls)):
        return None
    copies: dict[Any, Any] = {node: node.args[0] for node in calls}
    given = {node: place for place, node in enumerate(placeholders(module))}
    out = results(module)
    if out == list(given):
        return lambda *tensors: list(tensors)
    held = {node: attribute(module, copies.get(node, node)) for node in {*out} - {*given}}

    def run(*tensors: Tensor) -> list[Any]:
        found = {node: leaf.clone() if node in copies else leaf for node, leaf in held.items()}
        return [tensors[given[node]] if node in given else found[node] for node in out]

    return run


def _copies_constant(node: Node) -> bool:
    """Tell whether an operation gives a tensor that the program holds new memory, and does nothing else."""
    given: Any = node.args[0] if node.args else None
    return node.target is torch.ops.aten.clone.default and given.op == "get_attr" and not node.kwargs


def warn_uncompiled(error: CompilerError) -> None:
    """Say once why functions run uncompiled."""
    _warn(str(error))


@lru_cache(maxsize=64)
def _warn(why: str) -> None:
    warnings.warn(
        f"{why} Functions run uncompiled, as if jit were not there. Install a compiler (apt-get install g++), or set "
        "CXX to one",
        stacklevel=7,
    )

"""Tracing: what a function does with tensors of these shapes, as a program."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule, Interpreter

from torchpure import tree
from torchpure._torch import DynamicOutputShapeException, FakeTensor
from torchpure._types import Tree
from torchpure.errors import ImpureError, TransformError
from torchpure.jit.passes import constants, copied, dead, has_loops, let_out, mutates, value
from torchpure.transforms.calls import Packed, pass_through
from torchpure.transforms.engine import describe_function, user_line
from torchpure.transforms.purity import (
    Watch,
    is_lifted_literal,
    mutated_arguments,
    name_of,
    operator_draws,
    storage_key,
)
from torchpure.transforms.tracing import RealConstants, explain_tracing_errors, trace_with_constants

_ADVICE = (
    "choose with tp.where, or tp.cond for a branch, keep values as tensors instead of .item(), or name the argument in "
    "static= so that each of its values has a program of its own"
)


class Captures(NamedTuple):
    """Tensors that a function used without being given them."""

    tensors: list[Tensor]
    folded: list[Tensor]  # of those, the ones that constants were computed from
    signs: list[int]  # of both, by which a change of them is seen

    def stale(self) -> bool:
        """Tell whether one of them has other memory, or one that constants were computed from other numbers."""
        return bool(self.tensors) and self.signs != _signs(self.tensors, self.folded)


class Trace(NamedTuple):
    """A program, and what belongs to it."""

    module: GraphModule
    outputs: Packed  # the tree of the results
    captures: Captures


def _signs(captured: Sequence[Tensor], folded: Sequence[Tensor]) -> list[int]:
    return [leaf.data_ptr() for leaf in captured] + [0 if leaf.is_inference() else leaf._version for leaf in folded]


class _Operations(RealConstants):
    """Sees each operation of a trace: draws are refused, tensors from outside are listed."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self._fn = fn
        self._made: dict[int, Tensor] = {}  # alive as long as the trace: an id is not used again
        self._addresses: set[int] = set()  # of the memory of those
        self.captured: dict[int, Tensor] = {}
        self.folded: dict[int, Tensor] = {}  # of those, the ones whose numbers are in the program

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator_draws(func, args, kwargs or {}):
            raise TransformError(
                f"jit: {describe_function(self._fn)}{user_line()} draws from the global generator, `{func}`: a program "
                "would return the same numbers forever. Pass a key, and draw with tp.random"
            )
        if func is torch.ops.aten.lift_fresh.default:  # torch.tensor has made it, unseen
            self._made.update((id(leaf), leaf) for leaf in _real(args))
        given = self.saw((args, kwargs))
        for leaf in mutated_arguments(func, args, kwargs or {}):
            if not isinstance(leaf, FakeTensor) and storage_key(leaf) not in self._addresses:
                raise ImpureError(
                    f"jit: {describe_function(self._fn)}{user_line()} would change {name_of(leaf, self._fn)}, which it "
                    "captures: clone it, or return the new value"
                )
        try:
            out = super().__torch_dispatch__(func, types, args, kwargs)
        except DynamicOutputShapeException as error:
            raise TransformError(
                f"jit: {describe_function(self._fn)}{user_line()} makes a tensor whose size depends on numbers, with "
                f"`{func}`: keep all entries, and choose with tp.where, or pass the size as a static argument"
            ) from error
        made = _real(out)
        self._made.update((id(leaf), leaf) for leaf in made)
        if not func.is_view or is_lifted_literal(func, out):
            self._addresses.update(map(storage_key, made))
        if made and not func.is_view:
            self.folded.update(given)
        return out

    def used(self, constants: Sequence[Tensor]) -> None:
        """Take note of constants whose numbers the program depends on."""
        self.folded.update(self.saw(list(constants)))

    def saw(self, values: Tree) -> dict[int, Tensor]:
        """List the tensors from outside among these values."""
        given = {id(leaf): leaf for leaf in _real(values) if id(leaf) not in self._made}
        self.captured.update(given)
        return given


pass_through(_Operations)


def _real(values: Tree) -> list[Tensor]:
    leaves = tree.leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor)]


Arguments = Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]


def trace(fn: Callable[..., Any], arguments: Arguments, tensors: Sequence[Tensor]) -> Trace:
    """Return the program that `fn` runs on the (args, kwargs) which `arguments` makes of tensors.

    Raises:
        TransformError: `fn` needs the numbers of tensors, or draws from the global generator.
        ImpureError: `fn` changes what it was given or captures, or lets a traced tensor out.
    """
    outputs, operations = Packed(), _Operations(fn)

    def flat(*values: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = arguments(values)
        watch = Watch("jit", fn, args, kwargs)
        out = outputs.take(fn(*args, **kwargs))
        watch.check(traced=_is_fake)
        operations.saw(out)
        return out

    with explain_tracing_errors("jit", fn, _ADVICE):
        module = trace_with_constants(flat, [leaf.detach() for leaf in tensors], operations)
    for node, held in list(constants(module)):
        if held.requires_grad:
            _replace(module, str(node.target), held.detach())
    captured, folded = list(operations.captured.values()), list(operations.folded.values())
    made = dead(_functional(dead(module), tensors))  # a loop that is dead keeps none of the changes around it
    _cloned(made, captured)
    return Trace(made, outputs, Captures(captured, folded, _signs(captured, folded)))


def _is_fake(leaf: Tensor) -> bool:
    return isinstance(leaf, FakeTensor)


def _replace(module: GraphModule, name: str, tensor: Tensor) -> None:
    delattr(module, name)
    module.register_buffer(name, tensor, persistent=False)


def _cloned(module: GraphModule, captured: Sequence[Tensor]) -> None:
    """Give results that are constants new memory at each run, except where it is that of a captured tensor."""
    theirs, out = {leaf.untyped_storage()._cdata for leaf in captured if _strided(leaf)}, let_out(module)
    for node, held in list(constants(module)):
        if node in out and _strided(held) and held.untyped_storage()._cdata not in theirs:
            with module.graph.inserting_after(node):
                new = module.graph.call_function(torch.ops.aten.clone.default, (node,))
            new.meta = dict(node.meta)
            if isinstance(like := value(node), Tensor):
                new.meta["val"] = like.clone()
            node.replace_all_uses_with(new, lambda user: user in out or user.op == "output")
    module.recompile()


def _strided(leaf: Tensor) -> bool:
    return leaf.layout is torch.strided


def _functional(module: GraphModule, tensors: Sequence[Tensor]) -> GraphModule:
    """Write changes of temporaries as new tensors; where they surround a loop they stay."""
    if not mutates(module) or has_loops(module):
        return module
    held = [leaf for _, leaf in constants(module)]
    marked = Interpreter(_lifted(module))  # it hands on what nodes are marked with
    run: Any = functionalize(marked.run, remove="mutations")
    return _lowered(trace_with_constants(run, [leaf.detach() for leaf in (*tensors, *held)], RealConstants()), held)


def _lifted(module: GraphModule) -> GraphModule:
    """Take the tensors that a program holds as further arguments."""
    made = copied(module)
    last = made.graph.find_nodes(op="placeholder")
    for node, _ in list(constants(made)):
        with (
            made.graph.inserting_after(last[-1]) if last else made.graph.inserting_before(next(iter(made.graph.nodes)))
        ):
            given = made.graph.placeholder(f"held_{len(last)}")
        given.meta = dict(node.meta)
        node.replace_all_uses_with(given)
        made.graph.erase_node(node)
        last.append(given)
    made.recompile()
    return made


def _lowered(module: GraphModule, held: Sequence[Tensor]) -> GraphModule:
    """Let a program hold the tensors for its last arguments."""
    for number, node in enumerate(module.graph.find_nodes(op="placeholder")[-len(held) :] if held else ()):
        module.register_buffer(f"held_{number}", held[number], persistent=False)
        with module.graph.inserting_after(node):
            own = module.graph.get_attr(f"held_{number}")
        own.meta = dict(node.meta)
        node.replace_all_uses_with(own)
        module.graph.erase_node(node)
    module.recompile()
    return module

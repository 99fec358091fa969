"""Tracing for jit: record what a function does with tensors of given shapes, as an fx program."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule, Interpreter

from torchpure import tree
from torchpure._dtensors import is_dtensor
from torchpure._torch import DynamicOutputShapeException, FakeTensor
from torchpure._types import Tree
from torchpure.errors import ImpureError, TransformError
from torchpure.jit.passes import (
    constants,
    copy_program,
    eliminate_dead_code,
    fake_value,
    has_control_flow,
    mutates,
    output_aliases,
)
from torchpure.transforms.calls import Packed, register_mode
from torchpure.transforms.engine import SPARSE, describe_function, user_line
from torchpure.transforms.purity import (
    Watch,
    is_lifted_literal,
    mutated_arguments,
    name_of,
    operator_draws,
    refuse_hidden_tensors,
    storage_key,
    warn_of_python_draws,
)
from torchpure.transforms.tracing import RealConstants, explain_tracing_errors, trace_with_constants

from ._traced_layers import TracedLayers

_ADVICE = (
    "choose with tp.where, or tp.cond for a branch, keep values as tensors instead of .item(), or name the argument in "
    "static= so that each of its values has a program of its own"
)


class Captures(NamedTuple):
    """Tensors that a function used without getting them as arguments."""

    tensors: list[Tensor]
    constant_folded: list[Tensor]  # the subset from which constants of the program were computed
    fingerprints: list[int]  # pointers of `tensors` and versions of `constant_folded`, to detect changes

    def stale(self) -> bool:
        """Tell whether the program no longer fits its captured tensors.

        This is so if one has other memory, or if one whose numbers are in the program was changed in place.
        """
        return bool(self.tensors) and self.fingerprints != _fingerprints(self.tensors, self.constant_folded)


class Trace(NamedTuple):
    """A traced program, its output structure, and its captured tensors."""

    module: GraphModule
    outputs: Packed  # the structure of the results
    captures: Captures


def _fingerprints(captured: Sequence[Tensor], constant_folded: Sequence[Tensor]) -> list[int]:
    return [leaf.data_ptr() for leaf in captured] + [
        0 if leaf.is_inference() else leaf._version for leaf in constant_folded
    ]


class _CaptureMode(RealConstants):
    """A dispatch mode that sees each operation of a trace: it refuses draws and lists captured tensors."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self._fn = fn
        self._created: dict[int, Tensor] = {}  # kept alive during the trace, so that no id is used twice
        self._created_addresses: set[int] = set()  # addresses of the memory of `_created`
        self.captured: dict[int, Tensor] = {}
        self.constant_folded: dict[int, Tensor] = {}  # the subset whose numbers are in the program

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation that is not recorded in one step."""
        if operator_draws(func, args, kwargs):
            raise TransformError(
                f"jit: {describe_function(self._fn)}{user_line()} draws from the global generator, `{func}`: a program "
                "would return the same numbers at every call. Pass a key, and draw with tp.random"
            )
        if func is torch.ops.aten.lift_fresh.default:  # torch.tensor creates it without a dispatched operation
            self._created.update((id(leaf), leaf) for leaf in _real_tensors(args))
        captured = self.note_captures((args, kwargs))
        for leaf in mutated_arguments(func, args, kwargs):
            if not isinstance(leaf, FakeTensor) and storage_key(leaf) not in self._created_addresses:
                raise ImpureError(
                    f"jit: {describe_function(self._fn)}{user_line()} would change {name_of(leaf, self._fn)}, which it "
                    "captures: clone it, or return the new value"
                )
        try:
            out = super().run(func, args, kwargs)
        except DynamicOutputShapeException as error:
            raise TransformError(
                f"jit: {describe_function(self._fn)}{user_line()} makes a tensor whose size depends on numbers, with "
                f"`{func}`: keep all entries, and choose with tp.where, or pass the size as a static argument"
            ) from error
        new_tensors = _real_tensors(out)
        self._created.update((id(leaf), leaf) for leaf in new_tensors)
        if not func.is_view or is_lifted_literal(func, out):
            self._created_addresses.update(map(storage_key, new_tensors))
        if new_tensors and not func.is_view:
            self.constant_folded.update(captured)
        return out

    def used(self, constants: Sequence[Tensor]) -> None:
        """Record constants whose numbers the program depends on."""
        self.constant_folded.update(self.note_captures(list(constants)))

    def note_captures(self, values: Tree) -> dict[int, Tensor]:
        """Record and return the tensors among `values` that were not created during this trace."""
        captured = {id(leaf): leaf for leaf in _real_tensors(values) if id(leaf) not in self._created}
        if any(map(is_dtensor, captured.values())):
            raise TransformError(
                f"jit: {describe_function(self._fn)}{user_line()} captures or makes a DTensor: a program computes with "
                "tensors that this process has whole. Pass DTensors as arguments, and the function runs uncompiled; or "
                "compile the part of each process, with shard_map(jit(fn), ...)"
            )
        self.captured.update(captured)
        return captured


register_mode(_CaptureMode)


def _real_tensors(values: Tree) -> list[Tensor]:
    leaves = tree.leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor)]


ArgumentBuilder = Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]


def trace(fn: Callable[..., Any], arguments: ArgumentBuilder, tensors: Sequence[Tensor]) -> Trace:
    """Return the program that `fn` runs; `arguments` makes (args, kwargs) from tensors.

    Raises:
        TransformError: `fn` needs the numbers of tensors, or draws from the global generator.
        ImpureError: `fn` changes an argument or a captured tensor in place, or stores a traced tensor outside.
    """
    outputs, mode = Packed(), _CaptureMode(fn)

    def flat(*values: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = arguments(values)
        watch = Watch("jit", fn, args, kwargs)
        with TracedLayers(), warn_of_python_draws("jit", fn):
            result = fn(*args, **kwargs)
        watch.check(traced=_is_fake)
        refuse_hidden_tensors("jit", fn, tree.leaves(result), _is_fake)
        out = outputs.flatten(result)
        mode.note_captures(out)
        return out

    with explain_tracing_errors("jit", fn, _ADVICE):
        module = trace_with_constants(flat, [leaf.detach() for leaf in tensors], mode)
    for node, constant in list(constants(module)):
        if constant.requires_grad:
            _replace_constant(module, str(node.target), constant.detach())
    captured, constant_folded = list(mode.captured.values()), list(mode.constant_folded.values())
    if not all(map(_is_strided, captured)):
        raise TransformError(f"jit: {describe_function(fn)} {SPARSE}")
    module = eliminate_dead_code(module)  # a dead loop must not block functionalization
    functional = _functionalize(module, tensors)
    program = module if functional is module else eliminate_dead_code(functional)
    _clone_returned_constants(program, captured)
    return Trace(program, outputs, Captures(captured, constant_folded, _fingerprints(captured, constant_folded)))


def _is_fake(leaf: Tensor) -> bool:
    return isinstance(leaf, FakeTensor)


def _replace_constant(module: GraphModule, name: str, tensor: Tensor) -> None:
    delattr(module, name)
    module.register_buffer(name, tensor, persistent=False)


def _clone_returned_constants(module: GraphModule, captured: Sequence[Tensor]) -> None:
    """Clone returned constants in each run, except those that share memory with a captured tensor."""
    captured_storages = {leaf.untyped_storage()._cdata for leaf in captured if _is_strided(leaf)}
    aliases = output_aliases(module)
    for node, constant in list(constants(module)):
        if node in aliases and _is_strided(constant) and constant.untyped_storage()._cdata not in captured_storages:
            with module.graph.inserting_after(node):
                clone = module.graph.call_function(torch.ops.aten.clone.default, (node,))
            clone.meta = dict(node.meta)
            if isinstance(fake := fake_value(node), Tensor):
                clone.meta["val"] = fake.clone()
            node.replace_all_uses_with(clone, lambda user: user in aliases or user.op == "output")
    module.recompile()


def _is_strided(leaf: Tensor) -> bool:
    return leaf.layout is torch.strided


def _functionalize(module: GraphModule, tensors: Sequence[Tensor]) -> GraphModule:
    """Replace in-place changes of temporaries by new tensors. Programs with loops are left as they are."""
    if not mutates(module) or has_control_flow(module):
        return module
    held_tensors = [leaf for _, leaf in constants(module)]
    interpreter = Interpreter(_lift_constants(module))  # it keeps the metadata of nodes, such as the marks of `remat`
    run: Any = functionalize(interpreter.run, remove="mutations")
    return _embed_constants(
        trace_with_constants(run, [leaf.detach() for leaf in (*tensors, *held_tensors)], RealConstants()), held_tensors
    )


def _lift_constants(module: GraphModule) -> GraphModule:
    """Turn the constants of a program into further arguments."""
    program = copy_program(module)
    inputs = program.graph.find_nodes(op="placeholder")
    for node, _ in list(constants(program)):
        with (
            program.graph.inserting_after(inputs[-1])
            if inputs
            else program.graph.inserting_before(next(iter(program.graph.nodes)))
        ):
            argument = program.graph.placeholder(f"held_{len(inputs)}")
        argument.meta = dict(node.meta)
        node.replace_all_uses_with(argument)
        program.graph.erase_node(node)
        inputs.append(argument)
    program.recompile()
    return program


def _embed_constants(module: GraphModule, tensors: Sequence[Tensor]) -> GraphModule:
    """Turn the last arguments of a program into constants: the inverse of `_lift_constants`."""
    for number, node in enumerate(module.graph.find_nodes(op="placeholder")[-len(tensors) :] if tensors else ()):
        module.register_buffer(f"held_{number}", tensors[number], persistent=False)
        with module.graph.inserting_after(node):
            attribute_node = module.graph.get_attr(f"held_{number}")
        attribute_node.meta = dict(node.meta)
        node.replace_all_uses_with(attribute_node)
        module.graph.erase_node(node)
    module.recompile()
    return module

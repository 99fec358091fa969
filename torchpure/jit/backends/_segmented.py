"""The backend for loops that no other backend takes: Python runs the loops, and the code between loops is compiled.

A program becomes a list of steps. A segment is a run of nodes without control flow: it is compiled as one part. A loop
or branch is a step whose bodies are compiled.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from torchpure.jit.passes import (
    attribute,
    bodies,
    control_flow_kind,
    extract_subprogram,
    fake_value,
    mutates,
    placeholders,
    results,
    return_tuple,
)
from torchpure.transforms.engine import unaliased

from ._protocol import Compile

_MAX_UNCOMPILED = 2  # segments of up to this many operations run as they are
Values = dict[Node, Any]
Step = Callable[[Values], None]
Run = Callable[..., Sequence[Any]]


class SegmentedProgram:
    """A program as a list of steps: compiled segments, and loops with compiled bodies."""

    def __init__(self, module: GraphModule, compile_part: Compile) -> None:
        self._compile_part = compile_part
        self._inputs, self._results, self._sources = placeholders(module), results(module), list[str]()
        self._constants: Values = {node: attribute(module, node) for node in module.graph.find_nodes(op="get_attr")}
        self._steps: list[Step] = []
        used: list[list[Node]] = []
        for step, nodes in self._make_steps(module):
            self._steps.append(step)
            used.append(nodes)
        self._last_uses = _last_uses(
            used, [*self._constants, *(node for node in self._results if isinstance(node, Node))]
        )
        self.source, self.reason = "\n".join(self._sources), ""

    def __call__(self, *tensors: Tensor) -> list[Any]:
        """Run the program."""
        values: Values = {**self._constants, **dict(zip(self._inputs, tensors, strict=True))}
        for step, done in zip(self._steps, self._last_uses, strict=True):
            step(values)
            for node in done:  # free memory after its last use
                del values[node]
        return [values[node] if isinstance(node, Node) else node for node in self._results]

    def _make_steps(self, module: GraphModule) -> Iterator[tuple[Step, list[Node]]]:
        segment: list[Node] = []
        for node in module.graph.nodes:
            if node.op != "call_function":
                continue
            source: Any = node.args[0] if node.args else None
            if control_flow_kind(node):
                yield from self._segment(module, segment)
                segment = []
                yield self._control_flow(module, node), node.all_input_nodes
            elif node.target is operator.getitem and control_flow_kind(source):
                yield _getitem_step(node, source), [source]
            else:
                segment.append(node)
        yield from self._segment(module, segment)

    def _segment(self, module: GraphModule, nodes: list[Node]) -> Iterator[tuple[Step, list[Node]]]:
        outputs = [node for node in nodes if not set(nodes).issuperset(node.users)]
        if nodes:
            part, inputs = extract_subprogram(module, nodes, outputs)
            run: Run = (
                part
                if len(nodes) <= _MAX_UNCOMPILED
                else self._compile_for(part, [fake_value(node) for node in inputs])
            )
            yield _segment_step(run, inputs, outputs), inputs

    def _control_flow(self, module: GraphModule, node: Node) -> Step:
        programs = []
        for body in bodies(module, node):
            likes = [fake_value(like) for like in placeholders(body)]
            programs.append(
                self._compile_for(
                    return_tuple(body), [torch.empty(t.shape, dtype=t.dtype, device="meta") for t in likes]
                )
            )
        return _loop_step(node, _RUNNERS[control_flow_kind(node) or ""], programs, mutates(module))

    def _compile_for(self, module: GraphModule, likes: Sequence[Tensor]) -> Run:
        """Compile a part for tensors of these shapes and strides. Other strides are copied to these at run time."""
        devices = [fake_value(node).device for node in placeholders(module)]
        examples = [
            torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=device)
            for like, device in zip(likes, devices, strict=True)
        ]
        program = self._compile_part(module, examples)
        self._sources.append(program.source)
        strides, mutates_inputs = [example.stride() for example in examples], mutates(module)

        def run(*tensors: Tensor) -> Sequence[Any]:
            if all(leaf.stride() == stride for leaf, stride in zip(tensors, strides, strict=True)):
                return program(*tensors)
            return module(*tensors) if mutates_inputs else program(*map(_with_strides, tensors, strides))

        return run


def compile_program(module: GraphModule, tensors: Sequence[Tensor], compile_part: Compile) -> SegmentedProgram:
    """Compile the parts of a program with `compile_part`.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    assert len(placeholders(module)) == len(tensors)
    return SegmentedProgram(module, compile_part)


def _last_uses(used: Sequence[Sequence[Node]], kept: Sequence[Node]) -> list[list[Node]]:
    """List, for each step, the nodes that are read for the last time."""
    used_later, last_uses = set(kept), []
    for nodes in reversed(used):
        last_uses.append([node for node in dict.fromkeys(nodes) if node not in used_later])
        used_later.update(nodes)
    return last_uses[::-1]


def _with_strides(leaf: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Copy a tensor to memory of these strides. A dimension of stride 0 is copied once."""
    if leaf.stride() == stride:
        return leaf
    copy = torch.empty_strided(leaf.shape, stride, dtype=leaf.dtype, device=leaf.device)
    without_repeats = tuple(slice(None, None if step else 1) for step in stride)
    copy[without_repeats].copy_(leaf[without_repeats])
    return copy


def _getitem_step(node: Node, source: Node) -> Step:
    index: Any = node.args[1]

    def step(values: Values) -> None:
        values[node] = values[source][index]

    return step


def _segment_step(run: Run, inputs: Sequence[Node], outputs: Sequence[Node]) -> Step:
    def step(values: Values) -> None:
        values.update(zip(outputs, run(*[values[node] for node in inputs]), strict=True))

    return step


def _loop_step(node: Node, run: Callable[..., Any], programs: list[Run], mutates_results: bool) -> Step:
    """Return a step that runs a loop. If the program changes tensors in place, its results share no memory."""

    def step(values: Values) -> None:
        args = map_arg(node.args, values.__getitem__)
        out = run(programs, fake_value(node), *args)
        values[node] = unaliased(out, [values[used] for used in node.all_input_nodes]) if mutates_results else out

    return step


def _scan(programs: list[Run], like: Any, _body: Any, carry: Any, xs: Any, consts: Any, length: int, back: bool) -> Any:
    count = len(carry)
    ys = [torch.empty(y.shape, dtype=y.dtype, device=y.device) for y in like[count:]]
    carry, xs, consts = list(carry), [x.contiguous() for x in xs], [c.contiguous() for c in consts]
    for i in range(length - 1, -1, -1) if back else range(length):
        out = programs[0](*(c.contiguous() for c in carry), *(x[i] for x in xs), *consts)
        carry = list(out[:count])
        for y, row in zip(ys, out[count:], strict=True):
            y[i].copy_(row)
    return (*carry, *ys)


def _while(programs: list[Run], _like: Any, _cond: Any, _body: Any, carry: Any, consts: Any) -> Any:
    carry, consts = [c.contiguous() for c in carry], [c.contiguous() for c in consts]
    while bool(programs[0](*carry, *consts)[0]):
        carry = [c.contiguous() for c in programs[1](*carry, *consts)]
    return tuple(carry)


def _switch(programs: list[Run], _like: Any, index: Tensor, _branches: Any, operands: Any) -> Any:
    return tuple(programs[int(index)](*(c.contiguous() for c in operands)))


def _callback(_programs: Any, _like: Any, fn: Callable[..., Any], operands: Any, _token: str) -> Any:
    fn(*operands)
    return ()


_RUNNERS: dict[str, Callable[..., Any]] = {
    "scan_p": _scan,
    "while_p": _while,
    "switch_p": _switch,
    "callback_p": _callback,
}

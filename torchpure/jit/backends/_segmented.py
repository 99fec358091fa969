"""Programs with loops that no backend takes as a whole: Python runs the loops, and what is straight is compiled."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from torchpure.jit.passes import attribute, bodies, loop, mutates, placeholders, results, subprogram, tupled, value
from torchpure.transforms.engine import unaliased

from ._protocol import Compile

_FEW = 2  # operations that are not worth a program
Values = dict[Node, Any]
Step = Callable[[Values], None]
Run = Callable[..., Sequence[Any]]


class Segments:
    """A program in steps: compiled parts, and loops whose bodies are compiled."""

    def __init__(self, module: GraphModule, part: Compile) -> None:
        self._part = part
        self._inputs, self._results, self._sources = placeholders(module), results(module), list[str]()
        self._held: Values = {node: attribute(module, node) for node in module.graph.find_nodes(op="get_attr")}
        self._steps: list[Step] = []
        used: list[list[Node]] = []
        for step, nodes in self._all(module):
            self._steps.append(step)
            used.append(nodes)
        self._done = _last_uses(used, [*self._held, *(node for node in self._results if isinstance(node, Node))])
        self.source = "\n".join(self._sources)

    def __call__(self, *tensors: Tensor) -> list[Any]:
        """Run the program."""
        values: Values = {**self._held, **dict(zip(self._inputs, tensors, strict=True))}
        for step, done in zip(self._steps, self._done, strict=True):
            step(values)
            for node in done:  # memory that nobody needs any more
                del values[node]
        return [values[node] if isinstance(node, Node) else node for node in self._results]

    def _all(self, module: GraphModule) -> Iterator[tuple[Step, list[Node]]]:
        straight: list[Node] = []
        for node in module.graph.nodes:
            if node.op != "call_function":
                continue
            given: Any = node.args[0] if node.args else None
            if loop(node):
                yield from self._straight(module, straight)
                straight = []
                yield self._loop(module, node), node.all_input_nodes
            elif node.target is operator.getitem and loop(given):
                yield _item(node, given), [given]
            else:
                straight.append(node)
        yield from self._straight(module, straight)

    def _straight(self, module: GraphModule, nodes: list[Node]) -> Iterator[tuple[Step, list[Node]]]:
        outputs = [node for node in nodes if not set(nodes).issuperset(node.users)]
        if nodes:
            part, inputs = subprogram(module, nodes, outputs)
            run: Run = part if len(nodes) <= _FEW else self._compiled(part, [value(node) for node in inputs])
            yield _straight_step(run, inputs, outputs), inputs

    def _loop(self, module: GraphModule, node: Node) -> Step:
        programs = []
        for body in bodies(module, node):
            likes = [value(like) for like in placeholders(body)]
            programs.append(
                self._compiled(tupled(body), [torch.empty(t.shape, dtype=t.dtype, device="meta") for t in likes])
            )
        return _loop_step(node, _RUNS[loop(node) or ""], programs, mutates(module))

    def _compiled(self, module: GraphModule, likes: Sequence[Tensor]) -> Run:
        """Compile a part for tensors of these shapes and strides; others of the same shape are copied to them."""
        devices = [value(node).device for node in placeholders(module)]
        examples = [
            torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=device)
            for like, device in zip(likes, devices, strict=True)
        ]
        program = self._part(module, examples)
        self._sources.append(program.source)
        strides, changes = [example.stride() for example in examples], mutates(module)

        def run(*tensors: Tensor) -> Sequence[Any]:
            if all(leaf.stride() == stride for leaf, stride in zip(tensors, strides, strict=True)):
                return program(*tensors)
            return module(*tensors) if changes else program(*map(_laid_out, tensors, strides))

        return run


def compiled(module: GraphModule, tensors: Sequence[Tensor], part: Compile) -> Segments:
    """Compile the parts of a program by `part`; each of its nodes says what its value looks like.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    assert len(placeholders(module)) == len(tensors)
    return Segments(module, part)


def _last_uses(used: Sequence[Sequence[Node]], kept: Sequence[Node]) -> list[list[Node]]:
    """List for each step the nodes that are read for the last time."""
    seen, done = set(kept), []
    for nodes in reversed(used):
        done.append([node for node in dict.fromkeys(nodes) if node not in seen])
        seen.update(nodes)
    return done[::-1]


def _laid_out(leaf: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Copy a tensor to memory of these strides; along those of zero its elements are the same."""
    if leaf.stride() == stride:
        return leaf
    made = torch.empty_strided(leaf.shape, stride, dtype=leaf.dtype, device=leaf.device)
    first = tuple(slice(None, None if step else 1) for step in stride)
    made[first].copy_(leaf[first])
    return made


def _item(node: Node, given: Node) -> Step:
    place: Any = node.args[1]

    def step(values: Values) -> None:
        values[node] = values[given][place]

    return step


def _straight_step(run: Run, inputs: Sequence[Node], outputs: Sequence[Node]) -> Step:
    def step(values: Values) -> None:
        values.update(zip(outputs, run(*[values[node] for node in inputs]), strict=True))

    return step


def _loop_step(node: Node, run: Callable[..., Any], programs: list[Run], changes: bool) -> Step:
    """Return what runs a loop; where results are changed in place afterwards, they share memory with nothing."""

    def step(values: Values) -> None:
        args = map_arg(node.args, values.__getitem__)
        out = run(programs, value(node), *args)
        values[node] = unaliased(out, [values[used] for used in node.all_input_nodes]) if changes else out

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


_RUNS: dict[str, Callable[..., Any]] = {
    "scan_p": _scan,
    "while_p": _while,
    "switch_p": _switch,
    "callback_p": _callback,
}

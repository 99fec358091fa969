"""What the nodes of a traced program are: loops, views, pure or not."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from torchpure._torch import OpOverload, is_impure
from torchpure.transforms.calls import callback_p, scan_p, switch_p, while_p

_LOOPS: dict[Any, str] = {scan_p: "scan_p", while_p: "while_p", switch_p: "switch_p", callback_p: "callback_p"}
_BODIES = {"scan_p": slice(0, 1), "while_p": slice(0, 2), "switch_p": slice(1, 2)}  # which arguments hold programs


def loop(node: Node) -> str | None:
    """Name the primitive of control flow that a node calls."""
    return _LOOPS.get(node.target) if node.op == "call_function" else None


def has_loops(module: GraphModule) -> bool:
    """Tell whether a program has loops or branches."""
    return any(loop(node) for node in module.graph.nodes)


def body_nodes(node: Node) -> list[Node]:
    """List the nodes that stand for the programs inside of a loop or a branch."""
    found: list[Node] = []
    kind = loop(node)
    if kind in _BODIES:
        map_arg(node.args[_BODIES[kind]], found.append)
    return found


def bodies(module: GraphModule, node: Node) -> list[GraphModule]:
    """List the programs inside of a loop or a branch."""
    return [attribute(module, name) for name in body_nodes(node)]


def attribute(module: GraphModule, node: Node) -> Any:
    """Return what a `get_attr` node stands for."""
    return operator.attrgetter(str(node.target))(module)


def constants(module: GraphModule) -> Iterator[tuple[Node, Tensor]]:
    """List the tensors that a program holds itself."""
    for node in module.graph.find_nodes(op="get_attr"):
        held = attribute(module, node)
        if isinstance(held, Tensor):
            yield node, held


def placeholders(module: GraphModule) -> list[Node]:
    """List the inputs of a program."""
    return module.graph.find_nodes(op="placeholder")


def results(module: GraphModule) -> list[Any]:
    """List what a program returns: nodes, or None."""
    found: Any = module.graph.output_node().args[0]
    return list(found) if isinstance(found, list | tuple) else [found]


def value(node: Node) -> Any:
    """Return the tensor without numbers that stands for a node's value."""
    return node.meta.get("val")


def example(node: Node) -> Tensor:
    """Return a tensor like the value of a node, with any numbers."""
    like = value(node)
    return torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=like.device)


def impure(module: GraphModule, node: Node) -> bool:
    """Tell whether a node does more than give a value: it changes memory, checks, draws, or calls Python."""
    kind = loop(node)
    if kind is None:
        return node.op == "call_function" and is_impure(node.target, args=node.args, kwargs=node.kwargs)  # pyrefly: ignore[bad-argument-type] a function
    return kind == "callback_p" or any(
        impure(body, inner) for body in bodies(module, node) for inner in body.graph.nodes
    )


def mutates(module: GraphModule) -> bool:
    """Tell whether a program changes a tensor in place, in its loops too."""
    return any(
        getattr(getattr(node.target, "_schema", None), "is_mutable", False) or any(map(mutates, bodies(module, node)))
        for node in module.graph.nodes
        if node.op == "call_function"
    )


def is_view(node: Node) -> bool:
    """Tell whether an operation only looks at its argument otherwise."""
    target: Any = node.target
    return isinstance(target, OpOverload) and target.is_view


def let_out(module: GraphModule) -> set[Node]:
    """Return the nodes whose memory may be that of a result."""
    found: set[Node] = set()
    todo = [node for node in results(module) if isinstance(node, Node)]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            if is_view(node) or node.target is operator.getitem or _may_alias(node):
                todo.extend(node.all_input_nodes)
    return found


def _may_alias(node: Node) -> bool:
    """Tell whether an operation may return what it was given, as reshape does."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(part.alias_info is not None for part in schema.returns)


def copied(module: GraphModule, change: Callable[[GraphModule], GraphModule] | None = None) -> GraphModule:
    """Copy a program, and put what `change` makes of the programs inside of its loops in their places.

    Tensors that it holds are shared; all else may be changed.
    """
    graph, mapping = Graph(), {}
    out: Any = graph.graph_copy(module.graph, mapping, return_output_node=True)
    found, old = out
    graph.output(found).meta = dict(old.meta)
    made = GraphModule(module, graph)
    for node in made.graph.find_nodes(op="get_attr"):
        held = attribute(made, node)
        if isinstance(held, GraphModule):
            setattr(made, str(node.target), copied(held, change) if change is None else change(held))
    return made


def tupled(module: GraphModule) -> GraphModule:
    """Let a program return a tuple, where it returns a tensor alone."""
    made = copied(module)
    made.graph.output_node().update_arg(0, tuple(results(made)))
    made.recompile()
    return made


def subprogram(module: GraphModule, nodes: Sequence[Node], outputs: Sequence[Node]) -> tuple[GraphModule, list[Node]]:
    """Cut nodes out of a program: a program of their own, and the nodes outside that are its inputs."""
    own, graph, mapping = set(nodes), Graph(), {}
    inputs: list[Node] = []
    for node in nodes:
        inputs.extend(arg for arg in node.all_input_nodes if arg not in own and arg not in inputs)
    for arg in inputs:
        mapping[arg] = graph.placeholder(arg.name)
        mapping[arg].meta = dict(arg.meta)
    for node in nodes:
        mapping[node] = graph.node_copy(node, mapping.__getitem__)
    graph.output(tuple(mapping[node] for node in outputs))
    return GraphModule(module, graph), inputs

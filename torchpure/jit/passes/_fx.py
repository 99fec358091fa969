"""Questions about fx nodes (is it a loop, a view, impure?), and operations on fx programs (copy, cut)."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from torchpure._torch import LazyGraphModule, OpOverload, is_impure
from torchpure.transforms.calls import callback_p, scan_p, switch_p, while_p

_PRIMITIVES: dict[Any, str] = {scan_p: "scan_p", while_p: "while_p", switch_p: "switch_p", callback_p: "callback_p"}
_BODIES = {"scan_p": slice(0, 1), "while_p": slice(0, 2), "switch_p": slice(1, 2)}  # the arguments that hold programs


def control_flow_kind(node: Node) -> str | None:
    """Return the name of the control flow primitive that a node calls, or None."""
    return _PRIMITIVES.get(node.target) if node.op == "call_function" else None


def has_control_flow(module: GraphModule) -> bool:
    """Tell whether a program has loops, branches or callbacks."""
    return any(control_flow_kind(node) for node in module.graph.nodes)


def body_nodes(node: Node) -> list[Node]:
    """List the nodes that hold the programs inside a loop or a branch."""
    found: list[Node] = []
    kind = control_flow_kind(node)
    if kind in _BODIES:
        map_arg(node.args[_BODIES[kind]], found.append)
    return found


def bodies(module: GraphModule, node: Node) -> list[GraphModule]:
    """List the programs inside a loop or a branch."""
    return [attribute(module, name) for name in body_nodes(node)]


def attribute(module: GraphModule, node: Node) -> Any:
    """Return the object that a `get_attr` node refers to."""
    return operator.attrgetter(str(node.target))(module)


def constants(module: GraphModule) -> Iterator[tuple[Node, Tensor]]:
    """Yield the tensors that a program holds, each with its `get_attr` node."""
    for node in module.graph.find_nodes(op="get_attr"):
        constant = attribute(module, node)
        if isinstance(constant, Tensor):
            yield node, constant


def placeholders(module: GraphModule) -> list[Node]:
    """List the inputs of a program."""
    return module.graph.find_nodes(op="placeholder")


def results(module: GraphModule) -> list[Any]:
    """List what a program returns: nodes, or None."""
    found: Any = module.graph.output_node().args[0]
    return list(found) if isinstance(found, list | tuple) else [found]


def fake_value(node: Node) -> Any:
    """Return the fake tensor (shape, dtype and strides, no numbers) of a node."""
    return node.meta.get("val")


def example_tensor(node: Node) -> Tensor:
    """Return a tensor with the layout of a node's value and arbitrary numbers."""
    like = fake_value(node)
    return torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=like.device)


def has_side_effects(module: GraphModule, node: Node) -> bool:
    """Tell whether a node changes memory, checks, draws or calls Python."""
    kind = control_flow_kind(node)
    if kind is None:
        return node.op == "call_function" and is_impure(node.target, args=node.args, kwargs=node.kwargs)  # pyrefly: ignore[bad-argument-type] a function
    return kind == "callback_p" or any(
        has_side_effects(body, inner) for body in bodies(module, node) for inner in body.graph.nodes
    )


def prune(module: GraphModule) -> None:
    """Remove operations whose results are never read from a program of one's own. Its loops stay as they are."""
    module.graph.eliminate_dead_code(
        lambda node: node.op in {"placeholder", "output"} or has_side_effects(module, node)
    )


def mutates(module: GraphModule) -> bool:
    """Tell whether a program changes a tensor in place, also in its loops."""
    return any(
        getattr(getattr(node.target, "_schema", None), "is_mutable", False) or any(map(mutates, bodies(module, node)))
        for node in module.graph.nodes
        if node.op == "call_function"
    )


def is_view(node: Node) -> bool:
    """Tell whether an operation returns a view of its argument."""
    target: Any = node.target
    return isinstance(target, OpOverload) and target.is_view


def output_aliases(module: GraphModule) -> set[Node]:
    """Return the nodes whose memory may be the memory of a result."""
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
    """Tell whether an operation may return its argument or a view of it, as reshape does."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(part.alias_info is not None for part in schema.returns)


def copy_program(module: GraphModule, change: Callable[[GraphModule], GraphModule] | None = None) -> GraphModule:
    """Copy a program. `change` replaces each program inside its loops and branches.

    The copy shares the tensors that the program holds. Everything else may be changed.
    """
    graph, mapping = Graph(), {}
    out: Any = graph.graph_copy(module.graph, mapping, return_output_node=True)
    result, old = out
    graph.output(result).meta = dict(old.meta)
    program = LazyGraphModule(module, graph)
    for node in program.graph.find_nodes(op="get_attr"):
        inner = attribute(program, node)
        if isinstance(inner, GraphModule):
            setattr(program, str(node.target), copy_program(inner, change) if change is None else change(inner))
    return program


def return_tuple(module: GraphModule) -> GraphModule:
    """Return a copy that returns a tuple, also where the program returns a single tensor."""
    program = copy_program(module)
    program.graph.output_node().update_arg(0, tuple(results(program)))
    program.recompile()
    return program


def extract_subprogram(
    module: GraphModule, nodes: Sequence[Node], outputs: Sequence[Node]
) -> tuple[GraphModule, list[Node]]:
    """Copy nodes into a program of their own. Also return the nodes outside that are its inputs."""
    inside, graph, mapping = set(nodes), Graph(), {}
    inputs: list[Node] = []
    for node in nodes:
        inputs.extend(arg for arg in node.all_input_nodes if arg not in inside and arg not in inputs)
    for arg in inputs:
        mapping[arg] = graph.placeholder(arg.name)
        mapping[arg].meta = dict(arg.meta)
    for node in nodes:
        mapping[node] = graph.node_copy(node, mapping.__getitem__)
    graph.output(tuple(mapping[node] for node in outputs))
    return LazyGraphModule(module, graph), inputs

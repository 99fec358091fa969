"""How much memory a program has at once: of what it makes, until its last use."""

import operator
from collections.abc import Iterable

from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure import tree

from ._fx import bodies, control_flow_kind, fake_value, is_view, results


def peak_memory(module: GraphModule) -> int:
    """Count the bytes of temporaries and results that are alive at once, at most.

    What backends do without, because they compute several operations as one, is counted too.
    """
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    last = _last_uses(module, nodes)
    alive, most = 0, 0
    for place, node in enumerate(nodes):
        alive += _allocated_bytes(node)
        inside = max(map(peak_memory, bodies(module, node)), default=0) if control_flow_kind(node) else 0
        most = max(most, alive + inside)
        alive -= sum(map(_allocated_bytes, last.get(place, ())))
    return most


def _last_uses(module: GraphModule, nodes: list[Node]) -> dict[int, list[Node]]:
    """List, for each place, the nodes whose memory nobody needs after it; results are needed to the end."""
    kept = set(map(_memory_owner, _only_nodes(results(module))))
    ends: dict[Node, int] = {}
    for place, node in enumerate(nodes):
        for used in (node, *node.all_input_nodes):
            ends[_memory_owner(used)] = place
    last: dict[int, list[Node]] = {}
    for node, place in ends.items():
        if node not in kept:
            last.setdefault(place, []).append(node)
    return last


def _only_nodes(found: Iterable[object]) -> list[Node]:
    return [node for node in found if isinstance(node, Node)]


def _shares_memory(node: Node) -> bool:
    """Tell whether a node makes no memory of its own."""
    return is_view(node) or node.target is operator.getitem


def _memory_owner(node: Node) -> Node:
    """Return the node that made the memory of a value."""
    while _shares_memory(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _allocated_bytes(node: Node) -> int:
    """Count the bytes that an operation makes; inputs and constants are there already."""
    if node.op != "call_function" or _shares_memory(node):
        return 0
    return sum(leaf.nbytes for leaf in tree.leaves(fake_value(node)) if isinstance(leaf, Tensor))

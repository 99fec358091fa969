"""Peak memory of a program: the bytes that it allocates and that are alive at the same time."""

import operator
from collections.abc import Iterable

from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure import tree

from ._fx import bodies, control_flow_kind, fake_value, is_view, results


def peak_memory(module: GraphModule) -> int:
    """Return the largest number of bytes of temporaries and results that are alive at once.

    Backends fuse operations and then allocate less: this is an upper bound.
    """
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    last_uses = _last_uses(module, nodes)
    alive, peak = 0, 0
    for position, node in enumerate(nodes):
        alive += _allocated_bytes(node)
        inside = max(map(peak_memory, bodies(module, node)), default=0) if control_flow_kind(node) else 0
        peak = max(peak, alive + inside)
        alive -= sum(map(_allocated_bytes, last_uses.get(position, ())))
    return peak


def _last_uses(module: GraphModule, nodes: list[Node]) -> dict[int, list[Node]]:
    """List, for each position, the nodes whose memory is free after it. Results are never free."""
    result_owners = set(map(_memory_owner, _only_nodes(results(module))))
    ends: dict[Node, int] = {}
    for position, node in enumerate(nodes):
        for used in (node, *node.all_input_nodes):
            ends[_memory_owner(used)] = position
    last_uses: dict[int, list[Node]] = {}
    for node, position in ends.items():
        if node not in result_owners:
            last_uses.setdefault(position, []).append(node)
    return last_uses


def _only_nodes(found: Iterable[object]) -> list[Node]:
    return [node for node in found if isinstance(node, Node)]


def _shares_memory(node: Node) -> bool:
    """Tell whether a node allocates no memory of its own."""
    return is_view(node) or node.target is operator.getitem


def _memory_owner(node: Node) -> Node:
    """Return the node that allocated the memory of a value."""
    while _shares_memory(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _allocated_bytes(node: Node) -> int:
    """Return the bytes that an operation allocates. Inputs and constants exist already."""
    if node.op != "call_function" or _shares_memory(node):
        return 0
    return sum(leaf.nbytes for leaf in tree.leaves(fake_value(node)) if isinstance(leaf, Tensor))

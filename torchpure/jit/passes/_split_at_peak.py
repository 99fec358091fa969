"""Split a large program in two where most memory is alive: in a training step, before the backward pass.

Compiled as one program, inductor computes some values too early (transposed operands of the backward pass). It also
keeps some values too long (the input of a ReLU, to compute its output again). After a split, only the values that
cross it are kept. A step of a transformer of four layers then needs 0.7 of the memory.

If `remat` runs functions again, the split is before the first of these runs. In one program with the function itself,
both would be computed at the same time.
"""

from typing import NamedTuple

from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure import tree
from torchpure.transforms.rules import recomputation_of

from ._fx import control_flow_kind, extract_subprogram, fake_value, has_side_effects, is_view, placeholders, results

MIN_PEAK_BYTES = 1 << 24  # bytes alive at the split; below, the second call costs more than it saves


_PRODUCTS = frozenset({
    "mm", "addmm", "bmm", "baddbmm", "addbmm", "convolution", "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward",
})  # fmt: skip


class SplitProgram(NamedTuple):
    """A program in two parts. `second` reads inputs of the program and outputs of `first`."""

    first: GraphModule
    first_reads: list[int]  # positions among the program's inputs
    second: GraphModule
    second_reads: list[int]  # positions among the program's inputs, then the outputs of `first`
    result_positions: list[
        int | None
    ]  # of each result: its position among inputs, outputs of `first`, outputs of `second`


def split_at_peak(module: GraphModule) -> SplitProgram | None:
    """Split a program in two; None if that saves nothing.

    Law: both parts together compute what the program does.
    """
    nodes = [node for node in module.graph.nodes if node.op not in {"placeholder", "output"}]
    position = _peak_position(nodes)
    if position is None:
        return None
    position = next((i - 1 for i, node in enumerate(nodes) if i and recomputation_of(node)[0] is not None), position)
    early = _with_tuple_parts(nodes[: position + 1])
    late = [node for node in nodes if node not in early]
    if any(control_flow_kind(node) or has_side_effects(module, node) for node in early) or not late:
        return None
    result_nodes = [node for node in results(module) if isinstance(node, Node)]
    crossing = [node for node in early if any(user not in early for user in node.users)]
    late_results = [node for node in dict.fromkeys(result_nodes) if node in set(late)]
    inputs = placeholders(module)
    first, first_inputs = extract_subprogram(module, list(early), crossing)
    second, second_inputs = extract_subprogram(module, late, late_results)
    known_positions = {node: i for i, node in enumerate([*inputs, *crossing])}
    if not all(node in known_positions for node in (*first_inputs, *second_inputs)) or not all(
        isinstance(fake_value(node), Tensor) for node in crossing
    ):
        return None
    positions = {node: i for i, node in enumerate([*inputs, *crossing, *late_results])}
    result_positions = [positions[node] if isinstance(node, Node) else None for node in results(module)]
    return SplitProgram(
        first,
        [known_positions[n] for n in first_inputs],
        second,
        [known_positions[n] for n in second_inputs],
        result_positions,
    )


def _with_tuple_parts(nodes: list[Node]) -> dict[Node, None]:
    """Return the nodes, and the `getitem` nodes of those that return tuples: a tuple cannot cross the split."""
    found = dict.fromkeys(nodes)
    for node in nodes:
        if not isinstance(fake_value(node), Tensor):
            found.update(dict.fromkeys(node.users))
    return found


def _peak_position(nodes: list[Node]) -> int | None:
    """Return the position after which most memory is alive, if it is at least `MIN_PEAK_BYTES`.

    Only operands and results of matrix products, convolutions and attention count. Inductor may compute everything else
    where it is used, without storing it.
    """
    position = {node: i for i, node in enumerate(nodes)}
    last_use: dict[Node, int] = {}
    for node in nodes:
        for user in node.users:
            if user in position:
                root = _memory_owner(node)
                last_use[root] = max(last_use.get(root, 0), position[user])
    products = [node for node in nodes if getattr(node.target, "_opname", "") in _PRODUCTS]
    stored = {_memory_owner(node) for product in products for node in (product, *product.all_input_nodes)}
    delta = [0] * (len(nodes) + 1)
    for root, end in last_use.items():
        size = sum(leaf.nbytes for leaf in tree.leaves(fake_value(root)) if isinstance(leaf, Tensor))
        if root in position and isinstance(fake_value(root), Tensor) and root in stored:
            delta[position[root]] += size
            delta[end] -= size
    alive, peak, peak_at = 0, MIN_PEAK_BYTES, None
    for i, step in enumerate(delta[:-1]):
        alive += step
        if alive > peak:
            peak, peak_at = alive, i
    return peak_at


def _memory_owner(node: Node) -> Node:
    """Return the node that allocated the memory of a value."""
    while is_view(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node

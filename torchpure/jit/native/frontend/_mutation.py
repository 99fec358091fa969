"""Operations that change their first argument: computed aside, then written to its memory.

Memory that is changed, however often it is viewed, is laid out row by row, so that every view of it is one of strides.
"""

from typing import Any

from torch.fx import GraphModule, Node

_VIEWS = frozenset({
    "view", "_unsafe_view", "permute", "t", "transpose", "expand", "unsqueeze", "squeeze", "slice", "select", "alias",
    "detach", "split", "split_with_sizes", "unbind", "diagonal", "_reshape_alias", "as_strided", "lift_fresh",
})  # fmt: skip

_INPLACE_VIEWS = frozenset({"t_", "transpose_", "squeeze_", "unsqueeze_", "swapaxes_", "swapdims_", "resize_", "set_"})


def mutates_argument(node: Node) -> bool:
    """Tell whether an operation changes its first argument."""
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def is_inplace_view(node: Node) -> bool:
    """Tell whether an operation makes its first argument look at its memory in another way, and changes no number."""
    return getattr(node.target, "_opname", None) in _INPLACE_VIEWS


def mutated_nodes(module: GraphModule) -> set[Node]:
    """Return the nodes whose memory is changed later on."""
    found = (node for node in module.graph.nodes if mutates_argument(node) and not is_inplace_view(node))
    return {_memory_owner(node.args[0]) for node in found if isinstance(node.args[0], Node)}


def _memory_owner(node: Any) -> Node:
    """Return the node that made the memory of a value."""
    while True:
        target = node.target
        name = getattr(target, "_opname", None) or getattr(target, "__name__", "")
        views = name in _VIEWS or name == "getitem" or mutates_argument(node)
        if node.op != "call_function" or not views or not isinstance(node.args[0], Node):
            return node
        node = node.args[0]

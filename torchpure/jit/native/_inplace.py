"""Operations that change their first argument: computed aside, then written to its memory.

Memory that is changed, however often it is viewed, is laid out row by row, so that every view of it is one of strides.
"""

from typing import Any

from torch.fx import GraphModule, Node

_VIEWS = frozenset({
    "view", "_unsafe_view", "permute", "t", "transpose", "expand", "unsqueeze", "squeeze", "slice", "select", "alias",
    "detach", "split", "split_with_sizes", "unbind", "diagonal", "_reshape_alias", "as_strided", "lift_fresh",
})  # fmt: skip


def changes(node: Node) -> bool:
    """Tell whether an operation changes its first argument."""
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def changed(module: GraphModule) -> set[Node]:
    """Return the nodes whose memory is changed later on."""
    return {_root(node.args[0]) for node in module.graph.nodes if changes(node) and isinstance(node.args[0], Node)}


def _root(node: Any) -> Node:
    """Return the node that made the memory of a value."""
    while True:
        target = node.target
        name = getattr(target, "_opname", None) or getattr(target, "__name__", "")
        views = name in _VIEWS or name == "getitem" or changes(node)
        if node.op != "call_function" or not views or not isinstance(node.args[0], Node):
            return node
        node = node.args[0]

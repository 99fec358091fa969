"""Find operations that change their first argument. They are computed first, then written to the argument's memory.

Memory that is changed has row-major layout, so that every view of it can be described by strides.
"""

from typing import Any

from torch.fx import GraphModule, Node

_VIEWS = frozenset({
    "view", "_unsafe_view", "permute", "t", "transpose", "expand", "unsqueeze", "squeeze", "slice", "select", "alias",
    "detach", "split", "split_with_sizes", "unbind", "diagonal", "_reshape_alias", "as_strided", "unfold", "lift_fresh",
})  # fmt: skip

_INPLACE_VIEWS = frozenset({"t_", "transpose_", "squeeze_", "unsqueeze_", "swapaxes_", "swapdims_", "resize_", "set_"})


def mutates_argument(node: Node) -> bool:
    """Tell whether an operation changes its first argument in place."""
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def is_inplace_view(node: Node) -> bool:
    """Tell whether an operation changes only shape and strides of its first argument, such as `t_`."""
    return getattr(node.target, "_opname", None) in _INPLACE_VIEWS


def mutated_nodes(module: GraphModule) -> set[Node]:
    """Return the nodes whose memory is changed later."""
    found = (node for node in module.graph.nodes if mutates_argument(node) and not is_inplace_view(node))
    return {_memory_owner(node.args[0]) for node in found if isinstance(node.args[0], Node)}


def _memory_owner(node: Any) -> Node:
    """Return the node that allocated the memory of a value."""
    while True:
        target = node.target
        name = getattr(target, "_opname", None) or getattr(target, "__name__", "")
        views = name in _VIEWS or name == "getitem" or mutates_argument(node)
        if node.op != "call_function" or not views or not isinstance(node.args[0], Node):
            return node
        node = node.args[0]

"""Memory that a traced function makes of constants alone, and then writes arguments to.

Such a tensor looks like a constant until it is written to. Each run of the program must begin with a copy of what it
held then, and every look at it, through any view, must see what has been written.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


class Written:
    """The memory of constants that a traced function has written to."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}  # by storage; kept alive, so that none is taken for another

    def note(self, func: Any, args: Any) -> None:
        """Take note of what an operation writes to, if that is a constant."""
        if getattr(func, "_schema", None) is not None and func._schema.is_mutable:
            for leaf, argument in zip(args, func._schema.arguments, strict=False):
                if isinstance(leaf, Tensor) and argument.is_write:
                    self._kept.setdefault(leaf.untyped_storage()._cdata, leaf)

    def __contains__(self, leaf: Tensor) -> bool:
        return bool(self._kept) and leaf.untyped_storage()._cdata in self._kept

    def __bool__(self) -> bool:
        return bool(self._kept)


def fresh(module: GraphModule, written: Written) -> GraphModule:
    """Let a program begin with copies of the constants that it writes to.

    Law: a program gives the same whenever it runs.
    """
    if not written:
        return module
    for child in module.children():
        if isinstance(child, GraphModule):
            fresh(child, written)
    graph = module.graph
    copies: dict[int, Node] = {}
    for node in graph.find_nodes(op="get_attr"):
        held = getattr(module, str(node.target), None)
        if isinstance(held, Tensor) and held in written:
            key = held.untyped_storage()._cdata
            if key not in copies:
                with graph.inserting_before(next(n for n in graph.nodes if n.op != "placeholder")):
                    copies[key] = _copy(module, held, node, f"memory_{len(copies)}")
            with graph.inserting_before(node):
                view = _call(graph, torch.ops.aten.as_strided.default, node, copies[key], *_place(held))
            node.replace_all_uses_with(view)
            graph.erase_node(node)
    module.recompile()
    return module


def _copy(module: GraphModule, held: Tensor, like: Node, name: str) -> Node:
    """Write a node for a copy of all memory that a tensor is a view of."""
    size = held.untyped_storage().nbytes() // held.element_size()
    module.register_buffer(name, held.detach().as_strided((size,), (1,), 0).clone(), persistent=False)
    base = module.graph.get_attr(name)
    fake = like.meta.get("val", held)
    base.meta["val"] = fake.new_empty((size,))
    made = module.graph.call_function(torch.ops.aten.clone.default, (base,))
    made.meta["val"] = fake.new_empty((size,))
    return made


def _place(held: Tensor) -> tuple[list[int], list[int], int]:
    return list(held.shape), list(held.stride()), int(held.storage_offset())


def _call(graph: Any, target: Any, like: Node, *args: Any) -> Node:
    made = graph.call_function(target, args)
    made.meta = dict(like.meta)
    return made

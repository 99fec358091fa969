"""Memory that a traced function makes of constants alone, and then writes arguments to.

Such a tensor looks like a constant until it is written to. Each run of the program must begin with a copy of what it
held then, and every look at it, through any view, must see what has been written.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._torch import FakeTensor
from torchpure.errors import TransformError


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


def fresh(module: GraphModule, written: Written) -> GraphModule:
    """Let a program begin with copies of the constants that it writes to.

    Memory without numbers that the tracer lost sight of (a parameter that a module makes of a tensor) begins empty, if
    the program fills it before anything else.

    Law: a program gives the same whenever it runs.

    Raises:
        TransformError: memory that the tracer lost sight of is read.
    """
    for child in module.children():
        if isinstance(child, GraphModule):
            fresh(child, written)
    memory: dict[int, Node] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        held = getattr(module, str(node.target), None)
        if isinstance(held, Tensor) and (isinstance(held, FakeTensor) or held in written):
            _renew(module, node, held, memory)
    if memory:
        module.recompile()
    return module


def _renew(module: GraphModule, node: Node, held: Tensor, memory: dict[int, Node]) -> None:
    graph, key = module.graph, held.untyped_storage()._cdata
    if key not in memory:
        if isinstance(held, FakeTensor):
            _check_filled(node)
        with graph.inserting_before(next(n for n in graph.nodes if n.op != "placeholder")):
            make = _empty if isinstance(held, FakeTensor) else _copy
            memory[key] = make(module, held, node, f"memory_{len(memory)}")
    with graph.inserting_before(node):
        view = graph.call_function(torch.ops.aten.as_strided.default, (memory[key], *_place(held)))
    view.meta = dict(node.meta)
    node.replace_all_uses_with(view)
    graph.erase_node(node)


def _check_filled(node: Node) -> None:
    first = next(iter(node.users), None)
    if first is None or first.target not in _FILLS or first.args[0] is not node:
        raise TransformError(
            "a traced function reads a tensor that torch made behind the tracer's back, such as a parameter that is "
            "made of a traced tensor: pass the tensor itself on"
        )


_FILLS = {torch.ops.aten.copy_.default, torch.ops.aten.fill_.Scalar, torch.ops.aten.zero_.default}


def _empty(module: GraphModule, held: Tensor, like: Node, name: str) -> Node:
    """Write a node for memory that holds nothing yet."""
    size = held.untyped_storage().nbytes() // held.element_size()
    options: Any = {"dtype": held.dtype, "device": held.device}
    made = module.graph.call_function(torch.ops.aten.empty.memory_format, ([size],), options)
    made.meta["val"] = held.new_empty((size,))
    return made


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

"""Constants that a traced function mutates: each run of the program begins with copies of them.

Example: a buffer that the function makes with `torch.tensor(...)` and then fills from an argument. It looks like a
constant until the write. All views of it must see the write.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._torch import FakeTensor, disable_current_modes
from torchpure.errors import TransformError
from torchpure.transforms.purity import mutated_arguments


class MutatedConstants:
    """The storages of constants that a traced function has written to."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}  # by storage; kept alive, so that no key is used again
        self._before: dict[int, Tensor] = {}  # by storage: its numbers before the first write

    def note(self, func: Any, args: Any, kwargs: Any) -> None:
        """Record the constants that an operation writes to."""
        if getattr(func, "_schema", None) is not None:
            changed = mutated_arguments(func, args, kwargs)
            for leaf in (leaf for leaf in changed if not isinstance(leaf, FakeTensor)):
                key = leaf.untyped_storage()._cdata
                if key not in self._kept:
                    # now: torch's tracer runs later writes that take no argument, such as `sigmoid_`, on the constant
                    self._kept[key], self._before[key] = leaf, _all_numbers(leaf)

    def before(self, leaf: Tensor) -> Tensor:
        """Return all numbers of the storage of a constant, as they were before the first write."""
        return self._before[leaf.untyped_storage()._cdata]

    def __contains__(self, leaf: Tensor) -> bool:
        return bool(self._kept) and leaf.untyped_storage()._cdata in self._kept


def copy_mutated_constants(module: GraphModule, mutated: MutatedConstants) -> GraphModule:
    """Make a program begin with copies of the constants that it writes to.

    A fake tensor that the tracer did not see being made (a parameter that a module makes of a tensor) begins as empty
    memory, if the program fills it first.

    Law: every run of a program gives the same result.

    Raises:
        TransformError: the program reads such memory before it fills it.
    """
    for child in module.children():
        if isinstance(child, GraphModule):
            copy_mutated_constants(child, mutated)
    memory: dict[int, Node] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        held = getattr(module, str(node.target), None)
        if isinstance(held, Tensor) and (isinstance(held, FakeTensor) or held in mutated):
            _replace_by_view(module, node, held, memory, mutated)
    if memory:
        module.recompile()
    return module


def _all_numbers(leaf: Tensor) -> Tensor:
    size = leaf.untyped_storage().nbytes() // leaf.element_size()
    with disable_current_modes():
        return leaf.detach().as_strided((size,), (1,), 0).clone()


def _replace_by_view(
    module: GraphModule, node: Node, held: Tensor, memory: dict[int, Node], mutated: MutatedConstants
) -> None:
    graph, key = module.graph, held.untyped_storage()._cdata
    if key not in memory:
        if isinstance(held, FakeTensor):
            _check_filled(node)
        with graph.inserting_before(next(n for n in graph.nodes if n.op != "placeholder")):
            name = f"memory_{len(memory)}"
            empty = isinstance(held, FakeTensor)
            memory[key] = _empty_node(module, held) if empty else _copy_node(module, mutated.before(held), node, name)
    with graph.inserting_before(node):
        view = graph.call_function(torch.ops.aten.as_strided.default, (memory[key], *_geometry(held)))
    view.meta = dict(node.meta)
    node.replace_all_uses_with(view)
    graph.erase_node(node)


def _check_filled(node: Node) -> None:
    first = next(iter(node.users), None)
    if first is None or first.target not in _FILLS or first.args[0] is not node:
        raise TransformError(
            "a traced function reads a tensor that torch made without the tracer, such as a parameter that is "
            "made of a traced tensor: pass the tensor itself on"
        )


_FILLS = {torch.ops.aten.copy_.default, torch.ops.aten.fill_.Scalar, torch.ops.aten.zero_.default}


def _empty_node(module: GraphModule, held: Tensor) -> Node:
    """Add a node for empty memory."""
    size = held.untyped_storage().nbytes() // held.element_size()
    options: Any = {"dtype": held.dtype, "device": held.device}
    made = module.graph.call_function(torch.ops.aten.empty.memory_format, ([size],), options)
    made.meta["val"] = held.new_empty((size,))
    return made


def _copy_node(module: GraphModule, numbers: Tensor, like: Node, name: str) -> Node:
    """Add a node for a copy of all numbers of a storage."""
    size = len(numbers)
    module.register_buffer(name, numbers, persistent=False)
    base = module.graph.get_attr(name)
    fake = like.meta.get("val", numbers)
    base.meta["val"] = fake.new_empty((size,))
    made = module.graph.call_function(torch.ops.aten.clone.default, (base,))
    made.meta["val"] = fake.new_empty((size,))
    return made


def _geometry(held: Tensor) -> tuple[list[int], list[int], int]:
    return list(held.shape), list(held.stride()), int(held.storage_offset())

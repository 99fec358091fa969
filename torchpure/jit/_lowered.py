"""What a compiled function is: the traced program, the passed one, the generated code, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils.flop_counter import flop_registry

from torchpure import tree
from torchpure._torch import OpOverload
from torchpure.jit import backends
from torchpure.jit.passes import attribute, bodies, is_view, loop, placeholders, results, value
from torchpure.transforms.tracing import program_text

from ._executable import passed

_FREE = frozenset({
    "clone", "copy", "copy_", "cat", "stack", "_to_copy", "lift_fresh_copy", "full", "full_like", "zeros", "zeros_like",
    "ones", "ones_like", "empty", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "arange", "eye",
    "empty_strided", "new_empty_strided", "scalar_tensor", "index", "index_select", "gather", "embedding", "flip",
    "roll", "repeat", "constant_pad_nd", "select_scatter", "slice_scatter", "lift_fresh", "_assert_async",
    "unsafe_split", "_unsafe_view", "view_copy", "expand_copy", "empty_permuted", "fill", "tril", "triu",
})  # fmt: skip


class Cost(NamedTuple):
    """What one call costs."""

    operations: int  # 2mnk of a product, one for each element of other work; the turns of a `while` count once
    bytes: int  # of inputs and constants, which are read, and of results, which are written


@dataclass(frozen=True)
class Lowered:
    """A function as a program for one kind of arguments; `print` shows all of it."""

    module: GraphModule
    tensors: Sequence[Tensor]

    @cached_property
    def traced(self) -> str:
        """The program that was traced."""
        return program_text(self.module)

    @cached_property
    def passed(self) -> str:
        """The program after the passes."""
        return program_text(self._passed)

    @cached_property
    def source(self) -> str:
        """The code that was generated."""
        return backends.compiled(self._passed, self.tensors).source

    def cost(self) -> Cost:
        """Count operations, and bytes that go in and out."""
        ends = [value(node) for node in (*placeholders(self._passed), *results(self._passed)) if isinstance(node, Node)]
        moved = sum(leaf.nbytes for leaf in (*ends, *_held(self._passed).values()) if isinstance(leaf, Tensor))
        return Cost(_operations(self._passed), moved)

    def __str__(self) -> str:
        parts = {"traced": self.traced, "passed": self.passed, "source": self.source}
        return "\n\n".join(f"# {name}\n{text}" for name, text in parts.items())

    @cached_property
    def _passed(self) -> GraphModule:
        return passed(self.module)


def _held(module: GraphModule) -> dict[int, Tensor]:
    """Return the tensors that a program and those inside of it hold."""
    found: dict[int, Tensor] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        held = attribute(module, node)
        if isinstance(held, GraphModule):
            found |= _held(held)
        elif isinstance(held, Tensor):
            found[id(held)] = held
    return found


def _operations(module: GraphModule) -> int:
    return sum(_operations_of(module, node) for node in module.graph.nodes if node.op == "call_function")


def _operations_of(module: GraphModule, node: Node) -> int:
    kind = loop(node)
    if kind is not None:
        counts = [_operations(body) for body in bodies(module, node)]
        if kind == "switch_p":
            return max(counts, default=0)
        length: Any = node.args[4] if kind == "scan_p" else 1
        return length * sum(counts)
    target: Any = node.target
    if not isinstance(target, OpOverload) or is_view(node) or target._opname in _FREE:
        return 0
    if target.overloadpacket in flop_registry:
        given = tree.map(lambda leaf: value(leaf) if isinstance(leaf, Node) else leaf, (node.args, node.kwargs))
        return int(flop_registry[target.overloadpacket](*given[0], **given[1], out_val=value(node)))
    touched = [value(arg) for arg in node.all_input_nodes] + tree.leaves(value(node))
    return max((leaf.numel() for leaf in touched if isinstance(leaf, Tensor)), default=0)


def lowered(module: GraphModule, tensors: Sequence[Tensor]) -> Lowered:
    """Show a traced program; what is asked for is computed then."""
    return Lowered(module, [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in tensors])

"""What `jit(fn).lower(...)` returns: the traced program, the program after passes, the generated code, the cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils.flop_counter import flop_registry

from torchpure import tree
from torchpure._compile_lock import compile_lock
from torchpure._torch import OpOverload
from torchpure.jit import backends
from torchpure.jit.passes import attribute, bodies, control_flow_kind, fake_value, is_view, placeholders, results
from torchpure.transforms.tracing import program_text

from ._executable import run_passes

_ZERO_COST = frozenset({
    "clone", "copy", "copy_", "cat", "stack", "_to_copy", "lift_fresh_copy", "full", "full_like", "zeros", "zeros_like",
    "ones", "ones_like", "empty", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "arange", "eye",
    "empty_strided", "new_empty_strided", "scalar_tensor", "index", "index_select", "gather", "embedding", "flip",
    "roll", "repeat", "constant_pad_nd", "select_scatter", "slice_scatter", "lift_fresh", "_assert_async",
    "unsafe_split", "_unsafe_view", "view_copy", "expand_copy", "empty_permuted", "fill", "tril", "triu",
})  # fmt: skip


class Cost(NamedTuple):
    """The cost of one call."""

    operations: int  # 2mnk for a matrix product, one per element for other work; a `while` counts one iteration
    bytes: int  # inputs and constants (read) plus results (written)


@dataclass(frozen=True)
class Lowered:
    """A function as a program for one input signature. `print` shows all of it."""

    module: GraphModule
    tensors: Sequence[Tensor]

    @cached_property
    def traced(self) -> str:
        """The program as traced."""
        return program_text(self.module)

    @cached_property
    def passed(self) -> str:
        """The program after the passes."""
        return program_text(self._passed)

    @cached_property
    def source(self) -> str:
        """The generated code."""
        return self._compiled.source

    @cached_property
    def backend(self) -> str:
        """The backend, and why it is not the native one."""
        made = self._compiled
        name = type(made).__name__.removesuffix("Program").lower()
        return f"{name} (not native: {made.reason})" if made.reason else name

    def cost(self) -> Cost:
        """Count the operations, and the bytes read and written."""
        inputs_and_results = [
            fake_value(node) for node in (*placeholders(self._passed), *results(self._passed)) if isinstance(node, Node)
        ]
        num_bytes = sum(
            leaf.nbytes
            for leaf in (*inputs_and_results, *_held_constants(self._passed).values())
            if isinstance(leaf, Tensor)
        )
        return Cost(_operations(self._passed), num_bytes)

    def __str__(self) -> str:
        parts = {"traced": self.traced, "passed": self.passed, "backend": self.backend, "source": self.source}
        return "\n\n".join(f"# {name}\n{text}" for name, text in parts.items())

    @cached_property
    def _compiled(self) -> backends.CompiledProgram:
        with compile_lock:
            return backends.compile_program(self._passed, self.tensors)

    @cached_property
    def _passed(self) -> GraphModule:
        with compile_lock:
            return run_passes(self.module)


def _held_constants(module: GraphModule) -> dict[int, Tensor]:
    """Return the constants of a program and of the programs inside its loops and branches, by id."""
    found: dict[int, Tensor] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        constant = attribute(module, node)
        if isinstance(constant, GraphModule):
            found |= _held_constants(constant)
        elif isinstance(constant, Tensor):
            found[id(constant)] = constant
    return found


def _operations(module: GraphModule) -> int:
    return sum(_operations_of(module, node) for node in module.graph.nodes if node.op == "call_function")


def _operations_of(module: GraphModule, node: Node) -> int:
    kind = control_flow_kind(node)
    if kind is not None:
        counts = [_operations(body) for body in bodies(module, node)]
        if kind == "switch_p":
            return max(counts, default=0)
        length: Any = node.args[4] if kind == "scan_p" else 1
        return length * sum(counts)
    target: Any = node.target
    if not isinstance(target, OpOverload) or is_view(node) or target._opname in _ZERO_COST:
        return 0
    if target.overloadpacket in flop_registry:
        arguments = tree.map(
            lambda leaf: fake_value(leaf) if isinstance(leaf, Node) else leaf, (node.args, node.kwargs)
        )
        return int(flop_registry[target.overloadpacket](*arguments[0], **arguments[1], out_val=fake_value(node)))
    operands = [fake_value(arg) for arg in node.all_input_nodes] + tree.leaves(fake_value(node))
    return max((leaf.numel() for leaf in operands if isinstance(leaf, Tensor)), default=0)


def lowered_from_trace(module: GraphModule, tensors: Sequence[Tensor]) -> Lowered:
    """Wrap a traced program. Each view of it is computed when it is first used."""
    return Lowered(module, [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in tensors])

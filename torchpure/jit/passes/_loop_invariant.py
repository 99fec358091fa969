"""Loop invariant code motion: compute before a loop what depends on its constants only."""

from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from ._fx import (
    attribute,
    body_nodes,
    control_flow_kind,
    copy_program,
    fake_value,
    has_side_effects,
    is_view,
    mutates,
    output_aliases,
    placeholders,
    prune,
)

_SMALL_BYTES = 4096  # values up to this size may always move


def hoist_loop_invariants(module: GraphModule) -> GraphModule:
    """Move pure work on the constants of a loop out of its body, in inner loops first.

    A value moves only if it takes no more memory than its arguments, or very little memory. A loop whose body is shared
    with another loop stays as it is. So does a program that changes tensors in place.

    Law: `hoist_loop_invariants(module)(*args) == module(*args)`, bit for bit.
    """
    if mutates(module):
        return module
    program = copy_program(module, hoist_loop_invariants)
    for node in list(program.graph.nodes):
        if control_flow_kind(node) in {"scan_p", "while_p"} and _bodies_are_unshared(program, node):
            _LoopHoister(program, node).hoist()
    prune(program)
    program.recompile()
    return program


def _bodies_are_unshared(module: GraphModule, node: Node) -> bool:
    """Tell whether the programs inside a loop are used by this loop only."""
    attributes = [(attribute(module, body), body) for body in module.graph.find_nodes(op="get_attr")]
    return all(
        len(body.users) == 1 and sum(attribute(module, body) is other for other, _ in attributes) == 1
        for body in body_nodes(node)
    )


class _LoopHoister:
    """Move work out of one loop."""

    def __init__(self, module: GraphModule, node: Node) -> None:
        self.module, self.node = module, node
        self.bodies: list[GraphModule] = [attribute(module, body) for body in body_nodes(node)]
        carry: Any = node.args[1 if control_flow_kind(node) == "scan_p" else 2]
        xs: Any = node.args[2] if control_flow_kind(node) == "scan_p" else ()
        self.num_varying = len(carry) + len(xs)
        self.consts: list[Any] = list(node.args[3])  # pyrefly: ignore[bad-argument-type] a tuple

    def hoist(self) -> None:
        """Move what can be moved. The loop gets the moved values as further constants."""
        for body in self.bodies:
            before_loop: dict[Node, Any] = dict(zip(placeholders(body)[self.num_varying :], self.consts, strict=True))
            for node in _hoistable_nodes(body, set(before_loop)):
                moved = self._copy_before_loop(body, node, before_loop)
                self.consts.append(moved)
                for other in self.bodies:
                    placeholder = _new_placeholder(other, node)
                    if other is body:
                        node.replace_all_uses_with(placeholder)
                        before_loop[placeholder] = moved  # later moves may read it
        self.node.update_arg(3, tuple(self.consts))
        for body in self.bodies:
            prune(body)
            body.recompile()

    def _copy_before_loop(self, body: GraphModule, node: Node, before_loop: dict[Node, Any]) -> Any:
        """Compute a node of the body before the loop, and its arguments first."""
        if node not in before_loop:
            for arg in node.all_input_nodes:
                self._copy_before_loop(body, arg, before_loop)
            with self.module.graph.inserting_before(self.node):
                if node.op == "get_attr":
                    before_loop[node] = self._register_constant(attribute(body, node), node)
                else:
                    before_loop[node] = self.module.graph.node_copy(node, before_loop.__getitem__)
        return before_loop[node]

    def _register_constant(self, tensor: Tensor, node: Node) -> Node:
        name, number = "", 0
        while not name or hasattr(self.module, name):
            name, number = f"_hoisted_{number}", number + 1
        self.module.register_buffer(name, tensor, persistent=False)
        made = self.module.graph.get_attr(name)
        made.meta = dict(node.meta)
        return made


def _hoistable_nodes(body: GraphModule, consts: set[Node]) -> list[Node]:
    """List the nodes that depend on constants only, are used in the loop, and are cheap to keep."""
    invariant, aliases = set(consts), output_aliases(body)
    for node in body.graph.nodes:
        arguments = node.all_input_nodes
        constant = node.op == "get_attr" and isinstance(attribute(body, node), Tensor)
        if constant or (arguments and invariant.issuperset(arguments) and _pure_operation(body, node)):
            invariant.add(node)
    return [
        node
        for node in body.graph.nodes
        if node in invariant
        and node.op == "call_function"
        and _is_used_in_loop(node, invariant)
        and _is_cheap_to_keep(node, aliases)
    ]


def _pure_operation(body: GraphModule, node: Node) -> bool:
    return node.op == "call_function" and not control_flow_kind(node) and not has_side_effects(body, node)


def _is_used_in_loop(node: Node, invariant: set[Node]) -> bool:
    """Tell whether the rest of the loop uses a value, directly or through views of it."""
    return any(user not in invariant or (is_view(user) and _is_used_in_loop(user, invariant)) for user in node.users)


def _is_cheap_to_keep(node: Node, aliases: set[Node]) -> bool:
    fake = fake_value(node)
    if not isinstance(fake, Tensor) or is_view(node) or node in aliases:  # a body must own the memory of its results
        return False
    argument_bytes = sum(_num_bytes(fake_value(arg)) for arg in node.all_input_nodes)
    return _num_bytes(fake) <= max(argument_bytes, _SMALL_BYTES)


def _num_bytes(fake: Any) -> int:
    if isinstance(fake, list | tuple):
        return sum(map(_num_bytes, fake))
    return fake.numel() * fake.element_size() if isinstance(fake, Tensor) else 0


def _new_placeholder(body: GraphModule, like: Node) -> Node:
    with body.graph.inserting_after(placeholders(body)[-1]):
        made = body.graph.placeholder(f"hoisted_{len(placeholders(body))}")
    made.meta = dict(like.meta)
    return made

"""Common subexpression elimination: compute equal operations once."""

from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from torchpure.transforms.rules import recomputation_of

from ._fx import attribute, control_flow_kind, copy_program, has_side_effects, mutates, output_aliases, prune


def eliminate_common_subexpressions(module: GraphModule) -> GraphModule:
    """Compute the same operation of the same values once, also in the bodies of loops.

    Three things are left as they are:

    - a program that changes tensors in place, because equal operations may then give different values;
    - two results of the program, because results must not share memory;
    - what `remat` computes again, except where its policy keeps the first result.

    Law: `eliminate_common_subexpressions(module)(*args) == module(*args)`, bit for bit.
    """
    if mutates(module):
        return module
    program = copy_program(module, eliminate_common_subexpressions)
    aliases, occurrences = output_aliases(program), _FirstOccurrences()
    for node in program.graph.nodes:
        key = _node_key(program, node)
        if key is None:
            continue
        first = occurrences.first(key, node)
        if first is not node and not (first in aliases and node in aliases):
            node.replace_all_uses_with(first)
            program.graph.erase_node(node)
    prune(program)  # what only the later occurrences read
    program.recompile()
    return program


class _FirstOccurrences:
    """The first node of each computation, and of each run of a rematerialised function."""

    def __init__(self) -> None:
        self._by_run: dict[Any, Node] = {}
        self._by_value: dict[Any, Node] = {}  # in which rematerialised arguments count as their first computation
        self._first_equal: dict[Node, Node] = {}  # node in a rematerialised run -> first node of the same value

    def first(self, key: Any, node: Node) -> Node:
        """Return the first node that computes the same as this one: the node itself, if there is none."""
        run, kept_run = recomputation_of(node)
        value = _operation_key(node, self._first_equal) if self._first_equal and node.op == "call_function" else key
        if run != kept_run and (value, kept_run) in self._by_value:
            return self._by_value[value, kept_run]
        found = self._by_run.setdefault((key, run), node)
        if found is node:
            equal = self._by_value.setdefault((value, kept_run), node)
            if run is not None:
                self._first_equal[node] = self._by_value.get((value, None), equal)
        return found


def _node_key(module: GraphModule, node: Node) -> Any:
    """Return a key that equal nodes share; None for a node that must stay."""
    if node.op == "get_attr":
        constant = attribute(module, node)
        return ("constant", id(constant)) if isinstance(constant, Tensor) else None
    if node.op != "call_function" or control_flow_kind(node) or has_side_effects(module, node):
        return None
    key = _operation_key(node, {})
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _operation_key(node: Node, substitutes: dict[Node, Node]) -> Any:
    args, kwargs = node.args, node.kwargs
    if substitutes:
        args, kwargs = (map_arg(part, lambda arg: substitutes.get(arg, arg)) for part in (args, kwargs))
    return (node.target, _hash_key(args), _hash_key(kwargs))


def _hash_key(args: Any) -> Any:
    """Make arguments hashable. 1, 1.0 and True give different keys, and so do 0.0 and -0.0."""
    if isinstance(args, dict):
        return tuple((name, _hash_key(part)) for name, part in args.items())
    if isinstance(args, list | tuple):
        return (type(args).__name__, *map(_hash_key, args))
    if isinstance(args, slice):
        return ("slice", *map(_hash_key, (args.start, args.stop, args.step)))
    return (type(args), repr(args) if isinstance(args, float | complex) else args)

"""Work that is done twice is done once."""

from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from torchpure.transforms.rules import recomputation_of

from ._fx import attribute, copied, impure, let_out, loop, mutates


def duplicates(module: GraphModule) -> GraphModule:
    """Compute the same operation of the same values once, in the bodies of loops too.

    A program that changes tensors in place is left alone: there equal operations may differ in their values. So are
    two operations whose memory is let out, because results must not share any; and what `remat` runs again, except
    where its policy keeps the first result.

    Law: `duplicates(module)(*args) == module(*args)`, bit for bit.
    """
    if mutates(module):
        return module
    made = copied(module, duplicates)
    out, seen = let_out(made), _Seen()
    for node in made.graph.nodes:
        key = _key(made, node)
        if key is None:
            continue
        first = seen.first(key, node)
        if first is not node and not (first in out and node in out):
            node.replace_all_uses_with(first)
            made.graph.erase_node(node)
    made.recompile()
    return made


class _Seen:
    """The operations so far, by what they compute and the run of a function of `remat` that they are in."""

    def __init__(self) -> None:
        self._nodes: dict[Any, Node] = {}
        self._values: dict[Any, Node] = {}  # whatever the runs of their arguments
        self._same: dict[Node, Node] = {}  # of one that is run again: the first of the same value

    def first(self, key: Any, node: Node) -> Node:
        """Return the operation that is to be used for this one: itself, if there is none."""
        own, kept = recomputation_of(node)
        value = _operation(node, self._same) if self._same and node.op == "call_function" else key
        if own != kept and (value, kept) in self._values:
            return self._values[value, kept]
        found = self._nodes.setdefault((key, own), node)
        if found is node:
            same = self._values.setdefault((value, kept), node)
            if own is not None:
                self._same[node] = self._values.get((value, None), same)
        return found


def _key(module: GraphModule, node: Node) -> Any:
    """Return what makes two nodes the same; None for one that stays."""
    if node.op == "get_attr":
        held = attribute(module, node)
        return ("constant", id(held)) if isinstance(held, Tensor) else None
    if node.op != "call_function" or loop(node) or impure(module, node):
        return None
    key = _operation(node, {})
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _operation(node: Node, instead: dict[Node, Node]) -> Any:
    args, kwargs = node.args, node.kwargs
    if instead:
        args, kwargs = (map_arg(part, lambda arg: instead.get(arg, arg)) for part in (args, kwargs))
    return (node.target, _frozen(args), _frozen(kwargs))


def _frozen(args: Any) -> Any:
    """Make arguments comparable: 1, 1.0 and True are not the same, nor are 0.0 and -0.0."""
    if isinstance(args, dict):
        return tuple((name, _frozen(part)) for name, part in args.items())
    if isinstance(args, list | tuple):
        return (type(args).__name__, *map(_frozen, args))
    if isinstance(args, slice):
        return ("slice", *map(_frozen, (args.start, args.stop, args.step)))
    return (type(args), repr(args) if isinstance(args, float | complex) else args)

"""Work that is done twice is done once."""

from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure.jit._nodes import attribute, copied, impure, let_out, loop, mutates


def duplicates(module: GraphModule) -> GraphModule:
    """Compute the same operation of the same values once, in the bodies of loops too.

    A program that changes tensors in place is left alone: there equal operations may differ in their values. So are
    two operations whose memory is let out, because results must not share any.

    Law: `duplicates(module)(*args) == module(*args)`, bit for bit.
    """
    if mutates(module):
        return module
    made = copied(module, duplicates)
    out, seen = let_out(made), {}
    for node in made.graph.nodes:
        key = _key(made, node)
        if key is None:
            continue
        first = seen.setdefault(key, node)
        if first is not node and not (first in out and node in out):
            node.replace_all_uses_with(first)
            made.graph.erase_node(node)
    made.recompile()
    return made


def _key(module: GraphModule, node: Node) -> Any:
    """Return what makes two nodes the same; None for one that stays."""
    if node.op == "get_attr":
        held = attribute(module, node)
        return ("constant", id(held)) if isinstance(held, Tensor) else None
    if node.op != "call_function" or loop(node) or impure(module, node):
        return None
    key = (node.target, _frozen(node.args), _frozen(node.kwargs))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _frozen(args: Any) -> Any:
    """Make arguments comparable: 1, 1.0 and True are not the same, nor are 0.0 and -0.0."""
    if isinstance(args, dict):
        return tuple((name, _frozen(part)) for name, part in args.items())
    if isinstance(args, list | tuple):
        return (type(args).__name__, *map(_frozen, args))
    if isinstance(args, slice):
        return ("slice", *map(_frozen, (args.start, args.stop, args.step)))
    return (type(args), repr(args) if isinstance(args, float | complex) else args)

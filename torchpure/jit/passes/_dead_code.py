"""Dead work goes."""

from torch.fx import GraphModule

from ._fx import copied, impure


def dead(module: GraphModule) -> GraphModule:
    """Remove operations whose values nobody reads, in the bodies of loops too; checks and callbacks stay.

    Law: `dead(module)(*args) == module(*args)`, bit for bit.
    """
    made = copied(module, dead)
    made.graph.eliminate_dead_code(lambda node: node.op in {"placeholder", "output"} or impure(made, node))
    made.recompile()
    return made

"""Dead work goes."""

from torch.fx import GraphModule

from ._fx import copy_program, has_side_effects


def eliminate_dead_code(module: GraphModule) -> GraphModule:
    """Remove operations whose values nobody reads, in the bodies of loops too; checks and callbacks stay.

    Law: `dead(module)(*args) == module(*args)`, bit for bit.
    """
    made = copy_program(module, eliminate_dead_code)
    made.graph.eliminate_dead_code(lambda node: node.op in {"placeholder", "output"} or has_side_effects(made, node))
    made.recompile()
    return made

"""Dead code elimination."""

from torch.fx import GraphModule

from ._fx import copy_program, prune


def eliminate_dead_code(module: GraphModule) -> GraphModule:
    """Remove operations whose results are never read, also in the bodies of loops. Checks and callbacks stay.

    Law: `eliminate_dead_code(module)(*args) == module(*args)`, bit for bit.
    """
    program = copy_program(module, eliminate_dead_code)
    prune(program)
    program.recompile()
    return program

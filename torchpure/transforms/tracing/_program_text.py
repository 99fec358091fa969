"""The text of a traced program."""

import textwrap

from torch.fx import GraphModule


def program_text(module: GraphModule) -> str:
    """Return the text of a program: one operation a line, with the shape of each value."""
    lines = module.print_readable(print_output=False).splitlines()[1:]
    code = [line.partition(";  ")[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return textwrap.dedent("\n".join(code))

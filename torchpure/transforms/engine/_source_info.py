"""Names of a user's function, its arguments and its lines, for error messages."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from inspect import unwrap
from pathlib import Path
from traceback import StackSummary, extract_stack, extract_tb
from typing import Any

import torch
from torch.fx import GraphModule

from torchpure import tree
from torchpure._types import Tree
from torchpure.tree.summaries import counted, shortened


def describe_function(fn: Callable[..., Any]) -> str:
    """Name a function and where it is defined: `loss (train.py:12)`. Transforms and `partial` are unwrapped.

    >>> describe_function(print)
    '`print`'
    """
    inner = unwrap(fn)
    while isinstance(inner, partial):
        inner = unwrap(inner.func)
    name = getattr(inner, "__qualname__", None) or type(inner).__name__
    code = getattr(inner, "__code__", None)
    place = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
    return f"`{name.split('<locals>.')[-1].removeprefix('_VariableFunctionsClass.')}`{place}"


_LIBRARIES = (*(str(Path(module).parent) for module in (torch.__file__, tree.__path__[0])), copy.__file__)


def user_line(error: BaseException | None = None) -> str:
    """Return the innermost line of the user's program, now or where an error was raised: `, line 12 of train.py,`."""
    frames: StackSummary = extract_stack() if error is None else extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not frame.filename.startswith((*_LIBRARIES, "<")):
            return f", line {frame.lineno} of {Path(frame.filename).name},"
    return ""


def raised_in(error: BaseException, file: str, names: Sequence[str] = ()) -> bool:
    """Return whether an error passed through a file (the end of its path), and there through one of these functions."""
    return any(
        Path(frame.filename).as_posix().endswith(file) and (not names or frame.name in names)
        for frame in extract_tb(error.__traceback__)
    )


def argument_paths(number: int, argument: Tree) -> list[str]:
    """Name each leaf of an argument: `argument 0`, or `argument 0 at `w``."""
    return [f"argument {number}" + ("" if path == "." else f" at `{path}`") for path in tree.paths(argument)]


def describe_program(fn: Callable[..., Any], module: GraphModule, inputs: tuple[Tree, ...]) -> str:
    """Say in at most 12 lines which operations a program runs, and what it takes: `inputs` has texts for leaves."""
    called = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
    used = Counter(name.removeprefix("aten.").removesuffix(".default") for name in called)
    common = [f"{name} × {times}" for name, times in used.most_common(8)]
    paths = [path for number, argument in enumerate(inputs) for path in argument_paths(number, argument)]
    given = [f"  {path}: {text}" for path, text in zip(paths, tree.leaves(inputs), strict=True)]
    lines = [
        f"Graph of {describe_function(fn)}: {counted(len(called), 'operation')}; print shows them",
        *shortened(given, 10),
        f"  {', '.join(common)}" + (f", … {len(used) - 8} more" if len(used) > 8 else ""),
    ]
    return "\n".join(lines if common else lines[:-1])

"""Names of a user's function, its arguments and its lines, for error messages."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from inspect import unwrap
from pathlib import Path
from traceback import StackSummary, extract_stack, extract_tb
from typing import Any

import torch

from torchpure import tree
from torchpure._types import Tree


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

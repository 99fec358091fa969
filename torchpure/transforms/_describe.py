"""How a user's function and its arguments are named in errors."""

from collections.abc import Callable
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import Any

from torchpure import tree
from torchpure._types import Tree


def describe_function(fn: Callable[..., Any]) -> str:
    """Name a function and where it is defined: `loss (train.py:12)`; one inside transforms or `partial` is found.

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


def argument_paths(number: int, argument: Tree) -> list[str]:
    """Name each leaf of an argument: `argument 0`, or `argument 0 at `w``."""
    return [f"argument {number}" + ("" if path == "." else f" at `{path}`") for path in tree.paths(argument)]

"""Functions that run again later, with the names that they close over as they are now.

A backward pass runs bodies of loops, branches and what `remat` wraps once more. By then a name of the function around
them may stand for something else: that of a loop over layers, say. So they keep what their names stand for at the call.
"""

import dis
from collections.abc import Callable
from functools import lru_cache, partial
from types import CellType, CodeType, FunctionType
from typing import Any

from torch.compiler import is_dynamo_compiling


def frozen(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose cells, and those of functions in them, keep what they hold now.

    A cell that the function itself writes to stays the one that it is.
    """
    return fn if is_dynamo_compiling() else _copy(fn, {})


def _copy(fn: Any, known: dict[int, Any]) -> Any:
    if id(fn) in known:
        return known[id(fn)]
    if type(fn) is partial:
        return partial(_copy(fn.func, known), *fn.args, **fn.keywords)
    if type(fn) is not FunctionType or not fn.__closure__ or fn.__module__.partition(".")[0] == "torch":
        return fn
    own = _written(fn.__code__)
    names = fn.__code__.co_freevars
    cells = tuple(cell if name in own else CellType() for name, cell in zip(names, fn.__closure__, strict=True))
    made = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, cells)
    made.__kwdefaults__, made.__qualname__, made.__module__ = fn.__kwdefaults__, fn.__qualname__, fn.__module__
    made.__dict__.update(fn.__dict__)
    known[id(fn)] = made  # which it may call itself
    for old, new in zip(fn.__closure__, cells, strict=True):
        if new is not old:
            _fill(new, old, known)
    return made


def _fill(new: CellType, old: CellType, known: dict[int, Any]) -> None:
    try:
        held = old.cell_contents
    except ValueError:  # a name that has no value yet
        return
    new.cell_contents = _copy(held, known)


@lru_cache(maxsize=4096)
def _written(code: CodeType) -> frozenset[str]:
    """List the names from outside that code writes to, that of its nested functions included."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in {"STORE_DEREF", "DELETE_DEREF"}}
    inner = {name for const in code.co_consts if isinstance(const, CodeType) for name in _written(const)}
    return frozenset((own | inner).intersection(code.co_freevars))

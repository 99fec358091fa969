"""Copies of functions whose closure cells keep the values that they have now.

    for weight in weights:
        x = remat(lambda x: weight @ x)(x)  # the backward pass runs this again, when `weight` is the last one

Bodies of loops, branches and functions of `remat` run again in a backward pass. So each call takes a snapshot of their
closure cells.
"""

import dis
from collections.abc import Callable
from functools import lru_cache, partial
from types import CellType, CodeType, FunctionType
from typing import Any

from torch.compiler import is_dynamo_compiling


def snapshot_cells(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy of a function whose closure cells keep their present values, functions in them included.

    A cell that the function itself writes to is shared with the original.
    """
    return fn if is_dynamo_compiling() else _snapshot(fn, {})


def _snapshot(fn: Any, snapshots: dict[int, Any]) -> Any:
    if id(fn) in snapshots:
        return snapshots[id(fn)]
    if type(fn) is partial:
        return partial(_snapshot(fn.func, snapshots), *fn.args, **fn.keywords)
    if type(fn) is not FunctionType or not fn.__closure__ or (fn.__module__ or "").partition(".")[0] == "torch":
        return fn
    mutated = _mutated_names(fn.__code__)
    names = fn.__code__.co_freevars
    cells = tuple(cell if name in mutated else CellType() for name, cell in zip(names, fn.__closure__, strict=True))
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, cells)
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = fn.__kwdefaults__, fn.__qualname__, fn.__module__
    copy.__dict__.update(fn.__dict__)
    snapshots[id(fn)] = copy  # it may call itself
    for old, new in zip(fn.__closure__, cells, strict=True):
        if new is not old:
            _fill_cell(new, old, snapshots)
    return copy


def _fill_cell(new: CellType, old: CellType, snapshots: dict[int, Any]) -> None:
    try:
        contents = old.cell_contents
    except ValueError:  # the name has no value yet
        return
    new.cell_contents = _snapshot(contents, snapshots)


@lru_cache(maxsize=4096)
def _mutated_names(code: CodeType) -> frozenset[str]:
    """Return the free variables that code writes to, in nested functions too."""
    mutated = {step.argval for step in dis.get_instructions(code) if step.opname in {"STORE_DEREF", "DELETE_DEREF"}}
    inner = {name for const in code.co_consts if isinstance(const, CodeType) for name in _mutated_names(const)}
    return frozenset((mutated | inner).intersection(code.co_freevars))

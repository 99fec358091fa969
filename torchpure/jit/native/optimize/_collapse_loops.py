"""Collapse loops: two loops that walk memory without gaps become one, with less overhead and longer vectors.

Law: a collapsed kernel computes what the kernel does.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torchpure.jit.native.ir import IndirectLoad, Iota, Kernel, Load, Statement, Store


def collapse_loops(kernel: Kernel) -> Kernel:
    """Merge two loop variables, as long as there are two that move every address together."""
    while (pair := next(_collapsible(kernel), None)) is not None:
        kernel = _collapse_pair(kernel, *pair)
    return kernel


def _collapsible(kernel: Kernel) -> Iterator[tuple[int, int]]:
    """Yield pairs (far, near), both outer or both inner: one step of `far` is all steps of `near`."""
    sizes, statements = kernel.sizes, kernel.statements()
    counted = {s.variable for s in statements if isinstance(s, Iota)}
    addresses = {s.loop_strides for s in statements if isinstance(s, Load | IndirectLoad | Store)}
    free = [variable for variable in range(len(sizes)) if variable not in counted]
    for far in free:
        for near in free:
            together = far != near and (far < kernel.outer) == (near < kernel.outer)
            if together and all(c[far] == c[near] * sizes[near] for c in addresses):
                yield far, near


def _collapse_pair(kernel: Kernel, far: int, near: int) -> Kernel:
    sizes = list(kernel.sizes)
    sizes[near] *= sizes[far]
    del sizes[far]
    body, epilogue = ([_without_variable(s, far) for s in part] for part in (kernel.body, kernel.epilogue))
    return Kernel(tuple(sizes), kernel.outer - (far < kernel.outer), body, kernel.reductions, epilogue)


def _without_variable(statement: Any, far: int) -> Statement:
    if isinstance(statement, Load | IndirectLoad | Store):
        return replace(statement, loop_strides=statement.loop_strides[:far] + statement.loop_strides[far + 1 :])
    if isinstance(statement, Iota):
        return replace(statement, variable=statement.variable - (statement.variable > far))
    return statement

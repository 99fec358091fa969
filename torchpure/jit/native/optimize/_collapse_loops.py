"""Loops that walk through memory without a gap become one loop: fewer heads, and longer vectors.

Law: a collapsed kernel computes what the kernel does.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torchpure.jit.native.ir import Counter, Kernel, Load, LoadAt, Statement, Store


def collapsed(kernel: Kernel) -> Kernel:
    """Join variables of a domain as long as there are two that every address moves along together."""
    while (pair := next(_joinable(kernel), None)) is not None:
        kernel = _joined(kernel, *pair)
    return kernel


def _joinable(kernel: Kernel) -> Iterator[tuple[int, int]]:
    """Yield pairs of variables, both outer or both inner: one turn of the first is all turns of the second."""
    sizes, statements = kernel.sizes, kernel.statements()
    counted = {s.variable for s in statements if isinstance(s, Counter)}
    coefs = {s.coefs for s in statements if isinstance(s, Load | LoadAt | Store)}
    free = [variable for variable in range(len(sizes)) if variable not in counted]
    for far in free:
        for near in free:
            together = far != near and (far < kernel.outer) == (near < kernel.outer)
            if together and all(c[far] == c[near] * sizes[near] for c in coefs):
                yield far, near


def _joined(kernel: Kernel, far: int, near: int) -> Kernel:
    sizes = list(kernel.sizes)
    sizes[near] *= sizes[far]
    del sizes[far]
    inner, after = ([_without(s, far) for s in part] for part in (kernel.inner, kernel.after))
    return Kernel(tuple(sizes), kernel.outer - (far < kernel.outer), inner, kernel.folds, after)


def _without(statement: Any, far: int) -> Statement:
    if isinstance(statement, Load | LoadAt | Store):
        return replace(statement, coefs=statement.coefs[:far] + statement.coefs[far + 1 :])
    if isinstance(statement, Counter):
        return replace(statement, variable=statement.variable - (statement.variable > far))
    return statement

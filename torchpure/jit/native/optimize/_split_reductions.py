"""Split a long reduction with few results, so that threads can share it: partial results first, then the result.

Law: the parts are the same on any number of threads, and so is the order of every sum.

For example, the sum of a million numbers becomes 32 sums of 31,250 numbers, and the sum of these.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch

from torchpure.jit.native.ir import Buffer, IndirectLoad, Iota, Kernel, Load, Statement, Store, dense_strides

from ._collapse_loops import collapse_loops
from ._cost import MIN_SHARED_COST, kernel_cost

NUM_PARTS = 32
NewBuffer = Callable[[torch.dtype, int], Buffer]


def split_reductions(items: Sequence[Any], new_buffer: NewBuffer) -> list[Any]:
    """Return the items, with two or three kernels in the place of each reduction that threads could not share."""
    found: list[Any] = []
    for item in items:
        if isinstance(item, Kernel) and _is_long(item):
            kernel = collapse_loops(item)
            variable = _variable_to_split(kernel)
            found.extend([item] if variable is None else _split(kernel, variable, new_buffer))
        else:
            found.append(item)
    return found


def _is_long(kernel: Kernel) -> bool:
    outer = prod(kernel.sizes[: kernel.outer])
    return kernel.reduces and outer < NUM_PARTS and kernel_cost(kernel) >= 2 * MIN_SHARED_COST


def _variable_to_split(kernel: Kernel) -> int | None:
    """Choose the inner variable with the largest strides: the loops inside stay long and contiguous."""
    counted = {s.variable for s in kernel.body if isinstance(s, Iota)}
    inner = range(kernel.outer, len(kernel.sizes))
    total = prod(kernel.sizes[kernel.outer :])
    candidates = [v for v in inner if v not in counted and kernel.sizes[v] >= NUM_PARTS and total >= 2 * NUM_PARTS]
    strides = [s.loop_strides for s in kernel.body if isinstance(s, Load | IndirectLoad | Store)]
    return max(candidates, key=lambda v: (sum(abs(c[v]) for c in strides), kernel.sizes[v]), default=None)


def _split(kernel: Kernel, variable: int, new_buffer: NewBuffer) -> list[Kernel]:
    length, rest = divmod(kernel.sizes[variable], NUM_PARTS)
    outer = kernel.sizes[: kernel.outer]
    count = NUM_PARTS + bool(rest)
    partial_sums = [new_buffer(f.dtype, prod(outer) * count) for f in kernel.reductions]
    strides = dense_strides((*outer, count))
    found = [_parts(kernel, variable, length, partial_sums, strides)]
    if rest:
        found.append(_remainder(kernel, variable, length * NUM_PARTS, rest, partial_sums, strides))
    return [*found, _total(kernel, partial_sums, strides, count)]


def _parts(
    kernel: Kernel, variable: int, length: int, partial_sums: Sequence[Buffer], strides: Sequence[int]
) -> Kernel:
    """Reduce each part of the variable: a new outer variable counts the parts."""

    def with_parts(s: Statement) -> Statement:
        if isinstance(s, Load | IndirectLoad | Store):
            old = s.loop_strides
            new = (*old[: kernel.outer], old[variable] * length, *old[kernel.outer :])
            return replace(s, loop_strides=new)
        return replace(s, variable=s.variable + (s.variable >= kernel.outer)) if isinstance(s, Iota) else s

    inner = [length if v == variable else kernel.sizes[v] for v in range(kernel.outer, len(kernel.sizes))]
    sizes = (*kernel.sizes[: kernel.outer], NUM_PARTS, *inner)
    stores = _stores(kernel, partial_sums, 0, (*strides, *[0] * len(inner)))
    return Kernel(sizes, kernel.outer + 1, list(map(with_parts, kernel.body)), kernel.reductions, stores)


def _remainder(
    kernel: Kernel, variable: int, start: int, rest: int, partial_sums: Sequence[Buffer], strides: Sequence[int]
) -> Kernel:
    """Reduce the iterations from `start` on, which fill no part."""

    def shifted(s: Statement) -> Statement:
        if isinstance(s, Load | IndirectLoad | Store):
            return replace(s, offset=s.offset + start * s.loop_strides[variable])
        return s

    sizes = (*kernel.sizes[:variable], rest, *kernel.sizes[variable + 1 :])
    own_strides = (*strides[:-1], *[0] * (len(sizes) - kernel.outer))
    stores = _stores(kernel, partial_sums, NUM_PARTS * strides[-1], own_strides)
    return Kernel(sizes, kernel.outer, list(map(shifted, kernel.body)), kernel.reductions, stores)


def _stores(
    kernel: Kernel, partial_sums: Sequence[Buffer], offset: int, loop_strides: tuple[int, ...]
) -> list[Statement]:
    return [
        Store(buffer, offset, loop_strides, reduction.name)
        for buffer, reduction in zip(partial_sums, kernel.reductions, strict=True)
    ]


def _total(kernel: Kernel, partial_sums: Sequence[Buffer], strides: tuple[int, ...], count: int) -> Kernel:
    """Reduce the results of the parts, and run the epilogue."""

    def with_parts(s: Statement) -> Statement:
        if isinstance(s, Load | IndirectLoad | Store):
            return replace(s, loop_strides=(*s.loop_strides[: kernel.outer], 0))
        return s

    body: list[Statement] = []
    reductions = []
    for buffer, reduction in zip(partial_sums, kernel.reductions, strict=True):
        body.append(Load(f"{reduction.name}_part", buffer, 0, strides))
        reductions.append(replace(reduction, arg=f"{reduction.name}_part"))
    sizes = (*kernel.sizes[: kernel.outer], count)
    return Kernel(sizes, kernel.outer, body, reductions, list(map(with_parts, kernel.epilogue)))

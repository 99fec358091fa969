"""Give two kernels one domain, so that they can be fused: a reshape between them splits or merges loop variables.

Law: a kernel over another domain computes what the kernel does.

For example, a layer adds its bias over (2048, 256), and the next operation works on (16, 128, 256). Collapsed, the
second is one loop of 524,288. Split into (2048, 256), it is fused with the first.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torchpure.jit.native.ir import Buffer, IndirectLoad, Iota, Kernel, Load, Statement, Store

from ._collapse_loops import collapse_loops


def match_domains(one: Kernel, two: Kernel) -> tuple[Kernel, Kernel] | None:
    """Return the kernels over one domain; None if there is none, or if they have one already."""
    if _volumes(one).isdisjoint(_volumes(two)) or any(isinstance(s, Iota) for k in (one, two) for s in k.body):
        return None
    shared = _shared_buffer(one, two)
    if shared is None:
        return None
    first, second = collapse_loops(one), collapse_loops(two)
    for _ in range(2):  # each may split the other's variables
        second = _split_like(second, first, shared)
        first = _split_like(first, second, shared)
    changed = sorted(first.sizes) != sorted(one.sizes) or sorted(second.sizes) != sorted(two.sizes)
    return (first, second) if changed else None


def _volumes(kernel: Kernel) -> set[int]:
    return {prod(kernel.sizes), prod(kernel.sizes[: kernel.outer])}


def _shared_buffer(one: Kernel, two: Kernel) -> Buffer | None:
    """Return a buffer that the second kernel reads, and that the first one writes or reads."""
    reads = [s.buffer for s in two.statements() if isinstance(s, Load)]
    written, read = one.writes(), one.reads()
    return next((b for b in reads if b in written), next((b for b in reads if b in read), None))


def _split_like(kernel: Kernel, other: Kernel, shared: Buffer) -> Kernel:
    """Split variables of a kernel where another one has several, in the order in which both walk the shared buffer."""
    mine, its = _strides_in(kernel, shared), _strides_in(other, shared)
    if mine is None or its is None:
        return kernel
    for variable in sorted(range(len(kernel.sizes)), key=lambda v: mine[v]):
        stride, size = mine[variable], kernel.sizes[variable]
        inside = [(s, n) for s, n in zip(its, other.sizes, strict=True) if stride and stride <= s < stride * size]
        parts = [n for _, n in sorted(inside, reverse=True)]
        dense = sorted((s for s, _ in inside), reverse=True) == [stride * step for step in _steps(parts)]
        if len(parts) > 1 and prod(parts) == size and dense:
            return _split_like(_split(kernel, variable, parts), other, shared)
    return kernel


def _strides_in(kernel: Kernel, shared: Buffer) -> tuple[int, ...] | None:
    """Return the strides with which a kernel walks a buffer, if it does so in one way."""
    found = {
        s.loop_strides for s in kernel.statements() if isinstance(s, Load | IndirectLoad | Store) and s.buffer is shared
    }
    return found.pop() if len(found) == 1 else None


def _split(kernel: Kernel, variable: int, parts: Sequence[int]) -> Kernel:
    """Split a variable into several, the first of which is outermost."""
    steps = _steps(parts)

    def changed(s: Statement) -> Statement:
        if isinstance(s, Load | IndirectLoad | Store):
            old = s.loop_strides
            new = (*old[:variable], *(old[variable] * step for step in steps), *old[variable + 1 :])
            return replace(s, loop_strides=new)
        return s

    sizes = (*kernel.sizes[:variable], *parts, *kernel.sizes[variable + 1 :])
    outer = kernel.outer + (len(parts) - 1) * (variable < kernel.outer)
    return Kernel(sizes, outer, list(map(changed, kernel.body)), kernel.reductions, list(map(changed, kernel.epilogue)))


def _steps(parts: Sequence[int]) -> list[int]:
    """Return by how much one step of each part moves the variable that was split."""
    return [prod(parts[place + 1 :]) for place in range(len(parts))]

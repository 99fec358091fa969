"""Decide how several threads share a kernel: which loop variable is split, and in pieces of what size.

Law: a program computes the same bits on any number of threads. Threads share the iterations of one outer variable, so
each sum is computed by one thread, in one order.
"""

from typing import NamedTuple

from torchpure.jit.native.ir import IndirectLoad, Kernel, Load, Opaque, Store
from torchpure.jit.native.optimize import MIN_SHARED_COST, kernel_cost

from ._lines import Lines
from ._loop_nest import WIDE_STRIP, LoopNest

_ENOUGH = 32  # blocks that keep the threads of a usual machine busy


class Split(NamedTuple):
    """How threads share a kernel or a C++ text."""

    variable: int  # the loop variable of a kernel; -1 for a C++ text
    count: int  # blocks of iterations that may run in parallel
    block: int  # iterations of a block
    size: int  # all iterations
    grain: int  # at least so many blocks for one thread


def split_kernel(kernel: Kernel) -> Split | None:
    """Choose the variable of a kernel that threads share; None if one thread is as fast, or must do it alone."""
    cost = kernel_cost(kernel)
    if cost < MIN_SHARED_COST or not _independent(kernel):
        return None
    nest = LoopNest(Lines(), kernel)
    lane = [nest.lane] if nest.lane is not None and nest.lane < kernel.outer else []
    blocks = {v: WIDE_STRIP if v in lane else 1 for v in [*nest.outer, *lane]}
    counts = {v: -(-kernel.sizes[v] // block) for v, block in blocks.items()}
    most = max(counts, key=counts.__getitem__, default=-1)
    chosen = next((v for v, count in counts.items() if count >= _ENOUGH), most)
    if counts.get(chosen, 1) == 1:
        return None
    return Split(chosen, counts[chosen], blocks[chosen], kernel.sizes[chosen], _grain(counts[chosen], cost))


def split_text(item: Opaque) -> Split | None:
    """Tell how threads share a C++ text with independent iterations; None if one thread is as fast."""
    if item.count == 1 or item.cost < MIN_SHARED_COST:
        return None
    return Split(-1, item.count, 1, item.count, _grain(item.count, item.cost))


def _grain(count: int, cost: int) -> int:
    return max(count * MIN_SHARED_COST // (2 * cost), 1)


def _independent(kernel: Kernel) -> bool:
    """Tell whether the outer iterations write different elements, and read none that another one writes."""
    stores = [s for s in kernel.statements() if isinstance(s, Store)]
    addresses = {(s.buffer, s.offset, s.loop_strides) for s in stores}
    written = {s.buffer for s in stores}
    return all(_writes_each_once(kernel, s) for s in stores) and not any(
        s.buffer in written and (isinstance(s, IndirectLoad) or (s.buffer, s.offset, s.loop_strides) not in addresses)
        for s in kernel.statements()
        if isinstance(s, Load | IndirectLoad)
    )


def _writes_each_once(kernel: Kernel, store: Store) -> bool:
    """Tell whether a store writes other elements in each outer iteration."""
    count = len(kernel.sizes) if store in kernel.body else kernel.outer
    reach = 0  # how far the variables with smaller strides move the address
    for stride, size in sorted((abs(store.loop_strides[v]), kernel.sizes[v]) for v in range(count)):
        if stride <= reach:
            return False
        reach += stride * (size - 1)
    return True

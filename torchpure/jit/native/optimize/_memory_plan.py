"""The memory plan: offsets of temporaries in one workspace, which is allocated once per program.

Law: no two temporaries that are needed at one time share memory.

The memory of an inner scope lies behind that of the scopes around it, so an iteration of a loop allocates nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torchpure.jit.native.ir import Buffer, Opaque
from torchpure.jit.native.lowering import Branches, Loop, Scope

from ._accumulate import accumulate_products
from ._fusion import fuse_kernels
from ._inplace_carry import can_update_in_place, eliminate_self_copies
from ._split_reductions import split_reductions

ALIGNMENT = 64  # bytes of a cache line


def plan_memory(scope: Scope, start: int = 0, live_out: Sequence[Buffer] = ()) -> int:
    """Fuse the kernels of a scope and of inner scopes, and place every temporary. Return the bytes needed.

    Other scopes read the buffers in `live_out`.
    """
    for item in scope.items:
        if isinstance(item, Loop | Branches):
            for inner in item.scopes():
                inner.items = fuse_kernels(inner.items, set(inner.temporaries), item.live_out(inner))
    exclusive = set(scope.temporaries)
    scope.items = accumulate_products(fuse_kernels(scope.items, exclusive, set(live_out)), exclusive - set(live_out))
    scope.items = split_reductions(scope.items, scope.buffer)
    _hold_results(scope.items, exclusive - set(live_out))
    end = _place_temporaries(scope, start, set(live_out))
    largest_end = end
    for item in scope.items:
        if isinstance(item, Loop):
            largest_end = max(largest_end, _plan_loop(item, end))
        elif isinstance(item, Branches):
            largest_end = max([largest_end, *(plan_memory(branch, end) for branch in item.branches)])
    return largest_end


def _plan_loop(loop: Loop, start: int) -> int:
    end = start
    for buffer in loop.setup.temporaries:  # carries live until the loop ends
        end = _place_at(buffer, end)
    end = max(plan_memory(loop.teardown, end), end)
    if loop.condition:
        end = max(end, plan_memory(loop.condition[0], end, [loop.condition[1].buffer]))
    largest_end = max(end, plan_memory(loop.body, end))
    for pair in loop.carried:
        if can_update_in_place(pair, loop.body.items):
            pair.next.buffer.offset = pair.now.buffer.offset
    loop.body.items = eliminate_self_copies(loop.body.items, loop.carried)
    return largest_end


def _hold_results(items: Sequence[Any], exclusive: set[Buffer]) -> None:
    """Let buffers that one call of torch fills take the memory of its result. They need no place in the workspace."""
    writers = Counter(buffer for item in items for buffer in item.writes())
    for item in items:
        for view in item.results if isinstance(item, Opaque) else ():
            if view and view.buffer in exclusive and writers[view.buffer] == 1:
                view.buffer.held = True


def _place_at(buffer: Buffer, offset: int) -> int:
    buffer.offset = offset
    size = buffer.size * buffer.dtype.itemsize
    return offset + -(-size // ALIGNMENT) * ALIGNMENT


def _place_temporaries(scope: Scope, start: int, live_out: set[Buffer]) -> int:
    """Place each temporary in the first gap between those that are needed at the same time."""
    last: dict[Buffer, int] = {}
    first: dict[Buffer, int] = {}
    exclusive = {buffer for buffer in scope.temporaries if not buffer.held}
    for number, item in enumerate(scope.items):
        for buffer in (item.reads() | item.writes()) & exclusive:
            first.setdefault(buffer, number)
            last[buffer] = number
    for buffer in live_out & exclusive:
        last[buffer] = len(scope.items)
    live: list[Buffer] = []
    end = start
    for buffer in sorted(first, key=lambda b: (first[b], b.name)):
        live = sorted((b for b in live if last[b] >= first[buffer]), key=lambda b: b.offset)
        offset, size = start, _place_at(buffer, 0)
        for other in live:
            if offset + size <= other.offset:
                break
            offset = max(offset, _place_at(other, other.offset))
        end = max(end, _place_at(buffer, offset))
        live.append(buffer)
    return end

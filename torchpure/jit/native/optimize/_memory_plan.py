"""Where temporaries lie: one workspace, allocated once for a whole program.

Law: no two temporaries that are needed at one time share memory.

A scope inside another has its memory behind that of the scopes around it, so a turn of a loop allocates nothing.
"""

from collections.abc import Sequence

from torchpure.jit.native.ir import Buffer
from torchpure.jit.native.lowering import Branches, Loop, Scope

from ._accumulate import accumulated
from ._fusion import fused
from ._inplace_carry import renewed_in_place, without_idle_copies

ALIGNMENT = 64  # bytes: a line of cache


def planned(scope: Scope, start: int = 0, kept: Sequence[Buffer] = ()) -> int:
    """Fuse the kernels of a scope and of those inside; place every temporary; return the bytes up to the last."""
    for item in scope.items:
        if isinstance(item, Loop | Branches):
            for inner in item.scopes():
                inner.items = fused(inner.items, set(inner.temporaries), item.kept(inner))
    own = set(scope.temporaries)
    scope.items = accumulated(fused(scope.items, own, set(kept)), own - set(kept))
    end = _placed(scope, start, set(kept))
    furthest = end
    for item in scope.items:
        if isinstance(item, Loop):
            furthest = max(furthest, _planned_loop(item, end))
        elif isinstance(item, Branches):
            furthest = max([furthest, *(planned(branch, end) for branch in item.branches)])
    return furthest


def _planned_loop(loop: Loop, start: int) -> int:
    end = start
    for buffer in loop.head.temporaries:  # what is carried is needed until the end
        end = _put(buffer, end)
    end = max(planned(loop.tail, end), end)
    if loop.condition:
        end = max(end, planned(loop.condition[0], end, [loop.condition[1].buffer]))
    furthest = max(end, planned(loop.scope, end))
    for pair in loop.carried:
        if renewed_in_place(pair, loop.scope.items):
            pair.next.buffer.offset = pair.now.buffer.offset
    loop.scope.items = without_idle_copies(loop.scope.items, loop.carried)
    return furthest


def _put(buffer: Buffer, at: int) -> int:
    buffer.offset = at
    size = buffer.size * buffer.dtype.itemsize
    return at + -(-size // ALIGNMENT) * ALIGNMENT


def _placed(scope: Scope, start: int, kept: set[Buffer]) -> int:
    """Place each temporary in the first gap among those that are needed at the same time."""
    last: dict[Buffer, int] = {}
    first: dict[Buffer, int] = {}
    own = set(scope.temporaries)
    for number, item in enumerate(scope.items):
        for buffer in (item.reads() | item.writes()) & own:
            first.setdefault(buffer, number)
            last[buffer] = number
    for buffer in kept & own:
        last[buffer] = len(scope.items)
    live: list[Buffer] = []
    end = start
    for buffer in sorted(first, key=lambda b: (first[b], b.name)):
        live = sorted((b for b in live if last[b] >= first[buffer]), key=lambda b: b.offset)
        at, need = start, _put(buffer, 0)
        for other in live:
            if at + need <= other.offset:
                break
            at = max(at, _put(other, other.offset))
        end = max(end, _put(buffer, at))
        live.append(buffer)
    return end

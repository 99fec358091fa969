"""Clean up after fusion: remove stores that nothing reads, and copies of whole buffers.

Law: clean-up changes no result.
"""

from collections import defaultdict
from dataclasses import replace
from math import prod
from typing import Any

from torchpure.jit.native.ir import Buffer, Compute, IndirectLoad, Kernel, Load, Opaque, Statement, Store


def eliminate_copies(items: list[Any], exclusive: set[Buffer]) -> list[Any]:
    """Let items write directly to where what they write would be copied, if nothing else reads it."""
    users = defaultdict[Buffer, list[int]](list)  # positions of the items that read or write a buffer
    for position, item in enumerate(items):
        for buffer in item.reads() | item.writes():
            users[buffer].append(position)
    kept: list[Any] = list(items)
    for position, item in enumerate(items):
        copied = _copied_buffers(item) if isinstance(item, Kernel) else None
        if copied is None or copied[0] not in exclusive:
            continue
        source, target = copied
        *writers, last = users[source]
        alone = last == position and writers and users[target] == [position]
        if alone and all(_only_writes(kept[at], source) for at in writers):
            for at in writers:
                kept[at] = _redirect(kept[at], source, target)
            kept[position], users[target] = None, writers
            target.disjoint_writes |= source.disjoint_writes
    return [item for item in kept if item is not None]


def _only_writes(item: Any, buffer: Buffer) -> bool:
    return isinstance(item, Kernel | Opaque) and buffer not in item.reads()


def _redirect(item: Kernel | Opaque, source: Buffer, target: Buffer) -> Kernel | Opaque:
    """Return an item that writes to `target` what it wrote to `source`."""
    if isinstance(item, Opaque):
        return item.redirect(source, target)
    body, epilogue = (
        [replace(s, buffer=target) if isinstance(s, Store) and s.buffer is source else s for s in part]
        for part in (item.body, item.epilogue)
    )
    return replace(item, body=body, epilogue=epilogue)


def _copied_buffers(kernel: Kernel) -> tuple[Buffer, Buffer] | None:
    """Return (source, target) if a kernel copies all of one buffer and does nothing else."""
    if kernel.reduces or len(kernel.body) != 2:
        return None
    load, store = kernel.body
    if not isinstance(load, Load) or not isinstance(store, Store) or store.arg != load.name:
        return None
    one, two = load.buffer, store.buffer
    same = (load.offset, load.loop_strides, one.dtype, one.size) == (
        store.offset,
        store.loop_strides,
        two.dtype,
        two.size,
    )
    return (one, two) if same and load.offset == 0 and prod(kernel.sizes) == one.size else None


def eliminate_dead_stores(items: list[Any], exclusive: set[Buffer], live_out: set[Buffer]) -> list[Any]:
    """Remove stores that nothing reads, then the statements behind them, then empty kernels."""
    while True:
        read = live_out | {buffer for item in items for buffer in item.reads()}
        dead = exclusive - read
        changed = False
        for item in items:
            if isinstance(item, Kernel):
                changed |= _remove_dead_statements(item, dead)
        items = [item for item in items if not isinstance(item, Kernel) or item.writes()]
        if not changed:
            return items


def _remove_dead_statements(kernel: Kernel, dead: set[Buffer]) -> bool:
    before = len(kernel.body) + len(kernel.reductions) + len(kernel.epilogue)
    needed: set[str] = set()
    kernel.epilogue = _live_statements(kernel.epilogue, needed, dead)
    if kernel.reductions:
        reductions = [reduction for reduction in kernel.reductions if reduction.name in needed]
        kernel.reductions = (
            reductions or kernel.reductions[:1]
        )  # keep one, so that the kernel stays a reduction until it is removed
        needed |= {reduction.arg for reduction in kernel.reductions}
    kernel.body = _live_statements(kernel.body, needed, dead)
    return before != len(kernel.body) + len(kernel.reductions) + len(kernel.epilogue)


def _live_statements(statements: list[Statement], needed: set[str], dead: set[Buffer]) -> list[Statement]:
    live: list[Statement] = []
    for statement in reversed(statements):
        if isinstance(statement, Store):
            if statement.buffer not in dead:
                needed.add(statement.arg)
                live.append(statement)
        elif statement.name in needed:
            if isinstance(statement, Compute):
                needed.update(statement.args)
            elif isinstance(statement, IndirectLoad):
                needed.update(name for name, _, _ in statement.indices)
            live.append(statement)
    return live[::-1]

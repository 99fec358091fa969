"""Kernels that share a domain become one: values stay in registers, and memory that nobody else reads is not written.

Law: fusion changes no result, only where values are kept.

A kernel joins an earlier one when everything that it reads has been written by then, and what it reads of that kernel
is read at the very turn in which it was written.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from math import prod
from typing import Any

from torchpure.jit.native.ir import (
    Buffer,
    Compute,
    Counter,
    Kernel,
    Load,
    LoadAt,
    Opaque,
    Reduce,
    Statement,
    Store,
    moved,
    renamed,
)

LARGEST = 400  # statements of one kernel: more would not stay in registers, and compile slowly
REACH = 40  # earlier items that are tried
_DIMS = 5  # of a domain whose variables are matched in every order


def fused(items: Sequence[Any], own: set[Buffer], kept: set[Buffer]) -> list[Any]:
    """Return fewer items that do the same; others read what is in `kept`, and all that is not of this scope's `own`."""
    done: list[Any] = []
    written: dict[Buffer, list[int]] = {}  # where each buffer is written
    read: dict[Buffer, int] = {}  # where each buffer was last read
    for item in items:
        place = _join(done, item, written, read) if isinstance(item, Kernel) else None
        if place is None:
            place = len(done)
            done.append(item)
        for buffer in item.writes():
            written.setdefault(buffer, []).append(place)
        for buffer in item.reads():
            read[buffer] = max(read.get(buffer, 0), place)
    return _without_copies(_without_dead_stores(done, own, kept), own - kept)


def _join(done: list[Any], kernel: Kernel, written: dict[Buffer, list[int]], read: dict[Buffer, int]) -> int | None:
    first = max([0, *(place for buffer in kernel.reads() for place in written.get(buffer, ()))])
    for buffer in kernel.writes():  # written again: after the others, and after what read them
        first = max([first, *(p + (not buffer.apart) for p in written.get(buffer, ())), read.get(buffer, -1) + 1])
    for place in range(len(done) - 1, max(first, len(done) - REACH) - 1, -1):
        other = done[place]
        if not isinstance(other, Kernel) or not _related(other, kernel):
            continue
        joined = _joined(other, kernel)
        if joined is not None:
            done[place] = joined
            return place
    return None


def _related(one: Kernel, two: Kernel) -> bool:
    """Tell whether two kernels touch the same memory, or have no loops: else nothing is gained."""
    if not one.sizes and not two.sizes:
        return True
    return bool((one.reads() | one.writes()) & (two.reads() | two.writes()))


def _joined(one: Kernel, two: Kernel) -> Kernel | None:
    if len(one.inner) + len(one.after) + len(two.inner) + len(two.after) > LARGEST:
        return None
    if sorted(one.sizes) == sorted(two.sizes):
        if not one.reduces and not two.reduces:
            return _first(_side_by_side(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes))
        if not one.reduces:
            return _first(_folding(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes))
        if not two.reduces or two.outer == one.outer:
            return _first(_within(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes))
        return None
    if one.reduces and not two.reduces and sorted(one.sizes[: one.outer]) == sorted(two.sizes):
        return _first(_behind(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes[: one.outer]))
    return None


def _first(found: Iterator[Kernel | None]) -> Kernel | None:
    return next((kernel for kernel in found if kernel is not None), None)


def _mappings(own: Sequence[int], other: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the ways to match variables of equal size: own variable i is the other's `mapping[i]`."""
    count = len(own)
    orders = permutations(range(count)) if count <= _DIMS else iter([tuple(range(count))])
    return (order for order in orders if all(own[i] == other[order[i]] for i in range(count)))


def _side_by_side(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    added = _resolved(one.inner, (), two.inner, mapping, len(one.sizes))
    return None if added is None else Kernel(one.sizes, one.outer, [*one.inner, *added])


def _folding(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Let a kernel without inner variables compute what another folds."""
    back = [0] * len(mapping)
    for own, theirs in enumerate(mapping):
        back[theirs] = own
    statements = [moved(statement, back, len(two.sizes)) for statement in one.inner]
    added = _resolved(statements, (), two.inner, range(len(two.sizes)), len(two.sizes))
    if added is None:
        return None
    names = _names(two.inner, added)
    after = [renamed(statement, names) for statement in two.after]
    if _conflicts(statements, after):
        return None
    return Kernel(two.sizes, two.outer, [*statements, *added], [_renamed_fold(f, names) for f in two.folds], after)


def _within(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Add to the inner loops of a reduction: another one over the same domain, or what computes every element."""
    if two.reduces and any((i < two.outer) != (mapping[i] < one.outer) for i in range(len(mapping))):
        return None
    added = _resolved(one.inner, one.after, two.inner, mapping, len(one.sizes))
    if added is None:
        return None
    names = _names(two.inner, added)
    after = _resolved(one.after, one.inner, two.after, mapping, len(one.sizes))
    if after is None:
        return None
    names.update(_names(two.after, after))
    folds = [_renamed_fold(fold, names) for fold in two.folds]
    return Kernel(
        one.sizes,
        one.outer,
        [*one.inner, *added],
        [*one.folds, *folds],
        [*one.after, *(renamed(statement, names) for statement in after)],
    )


def _behind(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Compute from what has been folded, once the inner loops are done."""
    added = _resolved(one.after, one.inner, two.inner, mapping, len(one.sizes))
    return None if added is None else Kernel(one.sizes, one.outer, one.inner, one.folds, [*one.after, *added])


def _renamed_fold(fold: Reduce, names: dict[str, str]) -> Reduce:
    found = renamed(fold, names)
    assert isinstance(found, Reduce)
    return found


def _names(before: Sequence[Statement], after: Sequence[Statement]) -> dict[str, str]:
    """Return which names of a list stand no more in what became of it: those are found in `after.names`."""
    return after.names if isinstance(after, _Resolved) else {}


class _Resolved(list[Statement]):
    """Statements, and which of the former names are now other ones."""

    names: dict[str, str]


def _resolved(
    there: Sequence[Statement], elsewhere: Sequence[Statement], own: Sequence[Statement], mapping: Sequence[int], n: int
) -> _Resolved | None:
    """Write statements for another domain, after those already `there`; what was just computed is not loaded again.

    None if memory that is written there, or `elsewhere` in the same kernel, is read at another turn.
    """
    stored = {s.buffer: s for s in there if isinstance(s, Store)}
    barred = {s.buffer for s in elsewhere if isinstance(s, Store)}
    loads = {_key(s): s.name for s in there if isinstance(s, Load | LoadAt | Compute | Counter)}
    found = _Resolved()
    found.names = {}
    for statement in own:
        new = renamed(moved(statement, mapping, n), found.names)
        if isinstance(new, Load | LoadAt) and (
            new.buffer in barred or (new.buffer in stored and isinstance(new, LoadAt))
        ):
            return None
        if isinstance(new, Load) and new.buffer in stored:
            store = stored[new.buffer]
            if (store.offset, store.coefs) != (new.offset, new.coefs) or new.buffer.apart:
                return None
            found.names[new.name] = store.arg
        elif not isinstance(new, Store | Reduce) and _key(new) in loads:
            found.names[new.name] = loads[_key(new)]
        else:
            if isinstance(new, Store):
                if new.buffer in barred or (new.buffer in stored and not new.buffer.apart):
                    return None
                stored[new.buffer] = new
            elif not isinstance(new, Reduce):
                loads[_key(new)] = new.name
            found.append(new)
    return found


def _key(statement: Any) -> tuple[Any, ...]:
    """Return what makes two statements the same, their names aside."""
    if isinstance(statement, Compute):
        return (statement.dtype, statement.text, statement.args)
    if isinstance(statement, Counter):
        return (statement.dtype, statement.start, statement.step, statement.variable)
    indices = statement.indices if isinstance(statement, LoadAt) else ()
    return (id(statement.buffer), statement.offset, statement.coefs, indices)


def _conflicts(there: Sequence[Statement], after: Sequence[Statement]) -> bool:
    written = {s.buffer for s in there if isinstance(s, Store)}
    return any(isinstance(s, Load | LoadAt | Store) and s.buffer in written for s in after)


def _without_copies(items: list[Any], own: set[Buffer]) -> list[Any]:
    """Let a piece of C++ write where its only result would be copied to."""
    for place, item in enumerate(items):
        found = _copy(item) if isinstance(item, Kernel) else None
        if found is None or found[0] not in own:
            continue
        source, target = found
        writers = [other for other in items if source in other.writes()]
        readers = [other for other in items if source in other.reads()]
        touched = [o for o in items if o is not item and target in o.reads() | o.writes()]
        if len(writers) == 1 and isinstance(writers[0], Opaque) and readers == [item] and not touched:
            items[items.index(writers[0])] = writers[0].instead(source, target)
            return _without_copies(items[:place] + items[place + 1 :], own)
    return items


def _copy(kernel: Kernel) -> tuple[Buffer, Buffer] | None:
    """Return what a kernel copies to where, if it copies all of one buffer and does nothing else."""
    if kernel.reduces or len(kernel.inner) != 2:
        return None
    load, store = kernel.inner
    if not isinstance(load, Load) or not isinstance(store, Store) or store.arg != load.name:
        return None
    one, two = load.buffer, store.buffer
    same = (load.offset, load.coefs, one.dtype, one.size) == (store.offset, store.coefs, two.dtype, two.size)
    return (one, two) if same and load.offset == 0 and prod(kernel.sizes) == one.size else None


def _without_dead_stores(items: list[Any], own: set[Buffer], kept: set[Buffer]) -> list[Any]:
    """Leave out stores that nobody reads, then what was computed for them alone, then kernels that do nothing."""
    while True:
        read = kept | {buffer for item in items for buffer in item.reads()}
        dead = own - read
        changed = False
        for item in items:
            if isinstance(item, Kernel):
                changed |= _shortened(item, dead)
        items = [item for item in items if not isinstance(item, Kernel) or item.writes()]
        if not changed:
            return items


def _shortened(kernel: Kernel, dead: set[Buffer]) -> bool:
    before = len(kernel.inner) + len(kernel.folds) + len(kernel.after)
    needed: set[str] = set()
    kernel.after = _live(kernel.after, needed, dead)
    if kernel.folds:
        folds = [fold for fold in kernel.folds if fold.name in needed]
        kernel.folds = folds or kernel.folds[:1]  # the loops need not be told apart when nothing is left
        needed |= {fold.arg for fold in kernel.folds}
    kernel.inner = _live(kernel.inner, needed, dead)
    return before != len(kernel.inner) + len(kernel.folds) + len(kernel.after)


def _live(statements: list[Statement], needed: set[str], dead: set[Buffer]) -> list[Statement]:
    found: list[Statement] = []
    for statement in reversed(statements):
        if isinstance(statement, Store):
            if statement.buffer not in dead:
                needed.add(statement.arg)
                found.append(statement)
        elif statement.name in needed:
            if isinstance(statement, Compute):
                needed.update(statement.args)
            elif isinstance(statement, LoadAt):
                needed.update(name for name, _, _ in statement.indices)
            found.append(statement)
    return found[::-1]

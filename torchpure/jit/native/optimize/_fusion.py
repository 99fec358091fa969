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
    IndirectLoad,
    Iota,
    Kernel,
    Load,
    Opaque,
    Reduce,
    Statement,
    Store,
    remap_variables,
    rename_arguments,
)

MAX_STATEMENTS = 400  # statements of one kernel: more would not stay in registers, and compile slowly
MAX_LOOKBACK = 40  # earlier items that are tried
_MAX_PERMUTED_DIMS = 5  # of a domain whose variables are matched in every order


def fuse_kernels(items: Sequence[Any], exclusive: set[Buffer], live_out: set[Buffer]) -> list[Any]:
    """Return fewer items that do the same; others read what is in `kept`, and all that is not of this scope's `own`."""
    done: list[Any] = []
    written: dict[Buffer, list[int]] = {}  # where each buffer is written
    read: dict[Buffer, int] = {}  # where each buffer was last read
    for item in items:
        place = _fuse_into_earlier(done, item, written, read) if isinstance(item, Kernel) else None
        if place is None:
            place = len(done)
            done.append(item)
        for buffer in item.writes():
            written.setdefault(buffer, []).append(place)
        for buffer in item.reads():
            read[buffer] = max(read.get(buffer, 0), place)
    return _eliminate_copies(_eliminate_dead_stores(done, exclusive, live_out), exclusive - live_out)


def _fuse_into_earlier(
    done: list[Any], kernel: Kernel, written: dict[Buffer, list[int]], read: dict[Buffer, int]
) -> int | None:
    first = max([0, *(place for buffer in kernel.reads() for place in written.get(buffer, ()))])
    for buffer in kernel.writes():  # written again: after the others, and after what read them
        first = max(
            [first, *(p + (not buffer.disjoint_writes) for p in written.get(buffer, ())), read.get(buffer, -1) + 1]
        )
    for place in range(len(done) - 1, max(first, len(done) - MAX_LOOKBACK) - 1, -1):
        other = done[place]
        if not isinstance(other, Kernel) or not _share_memory(other, kernel):
            continue
        joined = _fuse_pair(other, kernel)
        if joined is not None:
            done[place] = joined
            return place
    return None


def _share_memory(one: Kernel, two: Kernel) -> bool:
    """Tell whether two kernels touch the same memory, or have no loops: else nothing is gained."""
    if not one.sizes and not two.sizes:
        return True
    return bool((one.reads() | one.writes()) & (two.reads() | two.writes()))


def _fuse_pair(one: Kernel, two: Kernel) -> Kernel | None:
    if len(one.body) + len(one.epilogue) + len(two.body) + len(two.epilogue) > MAX_STATEMENTS:
        return None
    if sorted(one.sizes) == sorted(two.sizes):
        if not one.reduces and not two.reduces:
            return _first_match(_fuse_pointwise(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes))
        if not one.reduces:
            return _first_match(_fuse_producer(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes))
        if not two.reduces or two.outer == one.outer:
            return _first_match(
                _fuse_into_inner_loops(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes)
            )
        return None
    if one.reduces and not two.reduces and sorted(one.sizes[: one.outer]) == sorted(two.sizes):
        return _first_match(
            _fuse_epilogue(one, two, mapping) for mapping in _mappings(two.sizes, one.sizes[: one.outer])
        )
    return None


def _first_match(found: Iterator[Kernel | None]) -> Kernel | None:
    return next((kernel for kernel in found if kernel is not None), None)


def _mappings(sizes: Sequence[int], target_sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the ways to match variables of equal size: own variable i is the other's `mapping[i]`."""
    count = len(sizes)
    orders = permutations(range(count)) if count <= _MAX_PERMUTED_DIMS else iter([tuple(range(count))])
    return (order for order in orders if all(sizes[i] == target_sizes[order[i]] for i in range(count)))


def _fuse_pointwise(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    added = _merge_statements(one.body, (), two.body, mapping, len(one.sizes))
    return None if added is None else Kernel(one.sizes, one.outer, [*one.body, *added])


def _fuse_producer(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Let a kernel without inner variables compute what another folds."""
    back = [0] * len(mapping)
    for variable, target in enumerate(mapping):
        back[target] = variable
    statements = [remap_variables(statement, back, len(two.sizes)) for statement in one.body]
    added = _merge_statements(statements, (), two.body, range(len(two.sizes)), len(two.sizes))
    if added is None:
        return None
    names = _new_names(two.body, added)
    after = [rename_arguments(statement, names) for statement in two.epilogue]
    if _touches_stores(statements, after):
        return None
    return Kernel(
        two.sizes, two.outer, [*statements, *added], [_rename_reduction(f, names) for f in two.reductions], after
    )


def _fuse_into_inner_loops(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Add to the inner loops of a reduction: another one over the same domain, or what computes every element."""
    if two.reduces and any((i < two.outer) != (mapping[i] < one.outer) for i in range(len(mapping))):
        return None
    added = _merge_statements(one.body, one.epilogue, two.body, mapping, len(one.sizes))
    if added is None:
        return None
    names = _new_names(two.body, added)
    after = _merge_statements(one.epilogue, one.body, two.epilogue, mapping, len(one.sizes))
    if after is None:
        return None
    names.update(_new_names(two.epilogue, after))
    folds = [_rename_reduction(fold, names) for fold in two.reductions]
    return Kernel(
        one.sizes,
        one.outer,
        [*one.body, *added],
        [*one.reductions, *folds],
        [*one.epilogue, *(rename_arguments(statement, names) for statement in after)],
    )


def _fuse_epilogue(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Compute from what has been folded, once the inner loops are done."""
    added = _merge_statements(one.epilogue, one.body, two.body, mapping, len(one.sizes))
    return None if added is None else Kernel(one.sizes, one.outer, one.body, one.reductions, [*one.epilogue, *added])


def _rename_reduction(fold: Reduce, names: dict[str, str]) -> Reduce:
    found = rename_arguments(fold, names)
    assert isinstance(found, Reduce)
    return found


def _new_names(before: Sequence[Statement], after: Sequence[Statement]) -> dict[str, str]:
    """Return which names of a list stand no more in what became of it: those are found in `after.names`."""
    return after.names if isinstance(after, _MergedStatements) else {}


class _MergedStatements(list[Statement]):
    """Statements, and which of the former names are now other ones."""

    names: dict[str, str]


def _merge_statements(
    earlier: Sequence[Statement],
    elsewhere: Sequence[Statement],
    statements: Sequence[Statement],
    mapping: Sequence[int],
    num_variables: int,
) -> _MergedStatements | None:
    """Write statements for another domain, after those already `there`; what was just computed is not loaded again.

    None if memory that is written there, or `elsewhere` in the same kernel, is read at another turn.
    """
    stored = {s.buffer: s for s in earlier if isinstance(s, Store)}
    stored_elsewhere = {s.buffer for s in elsewhere if isinstance(s, Store)}
    loads = {_statement_key(s): s.name for s in earlier if isinstance(s, Load | IndirectLoad | Compute | Iota)}
    found = _MergedStatements()
    found.names = {}
    for statement in statements:
        new = rename_arguments(remap_variables(statement, mapping, num_variables), found.names)
        if isinstance(new, Load | IndirectLoad) and (
            new.buffer in stored_elsewhere or (new.buffer in stored and isinstance(new, IndirectLoad))
        ):
            return None
        if isinstance(new, Load) and new.buffer in stored:
            store = stored[new.buffer]
            if (store.offset, store.loop_strides) != (new.offset, new.loop_strides) or new.buffer.disjoint_writes:
                return None
            found.names[new.name] = store.arg
        elif not isinstance(new, Store | Reduce) and _statement_key(new) in loads:
            found.names[new.name] = loads[_statement_key(new)]
        else:
            if isinstance(new, Store):
                if new.buffer in stored_elsewhere or (new.buffer in stored and not new.buffer.disjoint_writes):
                    return None
                stored[new.buffer] = new
            elif not isinstance(new, Reduce):
                loads[_statement_key(new)] = new.name
            found.append(new)
    return found


def _statement_key(statement: Any) -> tuple[Any, ...]:
    """Return what makes two statements the same, their names aside."""
    if isinstance(statement, Compute):
        return (statement.dtype, statement.text, statement.args)
    if isinstance(statement, Iota):
        return (statement.dtype, statement.start, statement.step, statement.variable)
    indices = statement.indices if isinstance(statement, IndirectLoad) else ()
    return (id(statement.buffer), statement.offset, statement.loop_strides, indices)


def _touches_stores(there: Sequence[Statement], after: Sequence[Statement]) -> bool:
    written = {s.buffer for s in there if isinstance(s, Store)}
    return any(isinstance(s, Load | IndirectLoad | Store) and s.buffer in written for s in after)


def _eliminate_copies(items: list[Any], exclusive: set[Buffer]) -> list[Any]:
    """Let a piece of C++ write where its only result would be copied to."""
    for place, item in enumerate(items):
        found = _copied_buffers(item) if isinstance(item, Kernel) else None
        if found is None or found[0] not in exclusive:
            continue
        source, target = found
        writers = [other for other in items if source in other.writes()]
        readers = [other for other in items if source in other.reads()]
        touched = [o for o in items if o is not item and target in o.reads() | o.writes()]
        if len(writers) == 1 and isinstance(writers[0], Opaque) and readers == [item] and not touched:
            items[items.index(writers[0])] = writers[0].redirect(source, target)
            return _eliminate_copies(items[:place] + items[place + 1 :], exclusive)
    return items


def _copied_buffers(kernel: Kernel) -> tuple[Buffer, Buffer] | None:
    """Return what a kernel copies to where, if it copies all of one buffer and does nothing else."""
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


def _eliminate_dead_stores(items: list[Any], exclusive: set[Buffer], live_out: set[Buffer]) -> list[Any]:
    """Leave out stores that nobody reads, then what was computed for them alone, then kernels that do nothing."""
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
        folds = [fold for fold in kernel.reductions if fold.name in needed]
        kernel.reductions = folds or kernel.reductions[:1]  # the loops need not be told apart when nothing is left
        needed |= {fold.arg for fold in kernel.reductions}
    kernel.body = _live_statements(kernel.body, needed, dead)
    return before != len(kernel.body) + len(kernel.reductions) + len(kernel.epilogue)


def _live_statements(statements: list[Statement], needed: set[str], dead: set[Buffer]) -> list[Statement]:
    found: list[Statement] = []
    for statement in reversed(statements):
        if isinstance(statement, Store):
            if statement.buffer not in dead:
                needed.add(statement.arg)
                found.append(statement)
        elif statement.name in needed:
            if isinstance(statement, Compute):
                needed.update(statement.args)
            elif isinstance(statement, IndirectLoad):
                needed.update(name for name, _, _ in statement.indices)
            found.append(statement)
    return found[::-1]

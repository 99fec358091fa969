"""Fuse kernels that share a domain: values stay in registers, and temporaries are not written to memory.

Law: fusion changes no result, only where values are kept.

A kernel may join an earlier kernel on two conditions. Everything that it reads is written by then. And what it reads of
the earlier kernel, it reads in the same iteration in which it was written.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

from torchpure.jit.native.ir import (
    Buffer,
    Compute,
    IndirectLoad,
    Iota,
    Kernel,
    Load,
    Reduce,
    Statement,
    Store,
    remap_variables,
    rename_arguments,
)

from ._dead_stores import eliminate_copies, eliminate_dead_stores
from ._match_domains import match_domains

MAX_STATEMENTS = 400  # statements of one kernel; more would not fit in registers, and compile slowly
MAX_LOOKBACK = 40  # how many earlier items are tried
_MAX_PERMUTED_DIMS = 5  # up to this rank, variables are matched in every order


def fuse_kernels(items: Sequence[Any], exclusive: set[Buffer], live_out: set[Buffer]) -> list[Any]:
    """Return fewer items that compute the same.

    Stores into `exclusive` buffers of this scope may disappear, except those in `live_out`, which other scopes read.
    """
    fused: list[Any] = []
    touched: list[set[Buffer]] = []  # what each item reads and writes
    written: dict[Buffer, list[int]] = {}  # buffer -> positions that write it
    read: dict[Buffer, int] = {}  # buffer -> last position that reads it
    for item in items:
        reads, writes = item.reads(), item.writes()
        position = None
        if isinstance(item, Kernel):
            position = _fuse_into_earlier(fused, touched, item, written, read)
        if position is None:
            position = len(fused)
            fused.append(item)
            touched.append(set())
        touched[position] |= reads | writes
        for buffer in writes:
            written.setdefault(buffer, []).append(position)
        for buffer in reads:
            read[buffer] = max(read.get(buffer, 0), position)
    return eliminate_copies(eliminate_dead_stores(fused, exclusive, live_out), exclusive - live_out)


def _fuse_into_earlier(
    fused: list[Any],
    touched: list[set[Buffer]],
    kernel: Kernel,
    written: dict[Buffer, list[int]],
    read: dict[Buffer, int],
) -> int | None:
    mine = kernel.reads() | kernel.writes()
    first = max([0, *(position for buffer in kernel.reads() for position in written.get(buffer, ()))])
    for buffer in kernel.writes():  # a second write must come after earlier writes and their readers
        first = max(
            [first, *(p + (not buffer.disjoint_writes) for p in written.get(buffer, ())), read.get(buffer, -1) + 1]
        )
    for position in range(len(fused) - 1, max(first, len(fused) - MAX_LOOKBACK) - 1, -1):
        other = fused[position]
        no_loops = not kernel.sizes and isinstance(other, Kernel) and not other.sizes
        if not isinstance(other, Kernel) or (mine.isdisjoint(touched[position]) and not no_loops):
            continue  # fusion would gain nothing
        both = _fuse_pair(other, kernel) or _fuse_over_reshape(other, kernel)
        if both is not None:
            fused[position] = both
            return position
    return None


def _fuse_over_reshape(one: Kernel, two: Kernel) -> Kernel | None:
    """Fuse two kernels whose domains differ by a reshape."""
    matched = match_domains(one, two)
    return None if matched is None else _fuse_pair(*matched)


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


def _first_match(candidates: Iterator[Kernel | None]) -> Kernel | None:
    return next((kernel for kernel in candidates if kernel is not None), None)


def _mappings(sizes: Sequence[int], target_sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the ways to match variables of equal size: variable i corresponds to target variable `mapping[i]`."""
    count = len(sizes)
    orders = permutations(range(count)) if count <= _MAX_PERMUTED_DIMS else iter([tuple(range(count))])
    return (order for order in orders if all(sizes[i] == target_sizes[order[i]] for i in range(count)))


def _fuse_pointwise(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    added = _merge_statements(one.body, (), two.body, mapping, len(one.sizes))
    return None if added is None else Kernel(one.sizes, one.outer, [*one.body, *added])


def _fuse_producer(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Fuse a kernel without inner variables into the reduction that reads its result."""
    inverse = [0] * len(mapping)
    for variable, target in enumerate(mapping):
        inverse[target] = variable
    statements = [remap_variables(statement, inverse, len(two.sizes)) for statement in one.body]
    added = _merge_statements(statements, (), two.body, range(len(two.sizes)), len(two.sizes))
    if added is None:
        return None
    names = _new_names(two.body, added)
    epilogue = [rename_arguments(statement, names) for statement in two.epilogue]
    if _touches_stores(statements, epilogue):
        return None
    return Kernel(
        two.sizes, two.outer, [*statements, *added], [_rename_reduction(f, names) for f in two.reductions], epilogue
    )


def _fuse_into_inner_loops(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Fuse a kernel into the inner loops of a reduction over the same domain."""
    if two.reduces and any((i < two.outer) != (mapping[i] < one.outer) for i in range(len(mapping))):
        return None
    added = _merge_statements(one.body, one.epilogue, two.body, mapping, len(one.sizes))
    if added is None:
        return None
    names = _new_names(two.body, added)
    epilogue = _merge_statements(one.epilogue, one.body, two.epilogue, mapping, len(one.sizes))
    if epilogue is None:
        return None
    names.update(_new_names(two.epilogue, epilogue))
    reductions = [_rename_reduction(reduction, names) for reduction in two.reductions]
    return Kernel(
        one.sizes,
        one.outer,
        [*one.body, *added],
        [*one.reductions, *reductions],
        [*one.epilogue, *(rename_arguments(statement, names) for statement in epilogue)],
    )


def _fuse_epilogue(one: Kernel, two: Kernel, mapping: Sequence[int]) -> Kernel | None:
    """Fuse a kernel that computes from reduced values: it runs after the inner loops."""
    added = _merge_statements(one.epilogue, one.body, two.body, mapping, len(one.sizes))
    return None if added is None else Kernel(one.sizes, one.outer, one.body, one.reductions, [*one.epilogue, *added])


def _rename_reduction(reduction: Reduce, names: dict[str, str]) -> Reduce:
    renamed = rename_arguments(reduction, names)
    assert isinstance(renamed, Reduce)
    return renamed


def _new_names(before: Sequence[Statement], merged: Sequence[Statement]) -> dict[str, str]:
    """Return the renamings that `_merge_statements` made for a list of statements."""
    return merged.names if isinstance(merged, _MergedStatements) else {}


class _MergedStatements(list[Statement]):
    """Statements, and the names that changed when they were merged."""

    names: dict[str, str]


def _merge_statements(
    earlier: Sequence[Statement],
    elsewhere: Sequence[Statement],
    statements: Sequence[Statement],
    mapping: Sequence[int],
    num_variables: int,
) -> _MergedStatements | None:
    """Rewrite statements for another domain, after the `earlier` statements. Skip what was just computed.

    Return None if a statement reads, in another iteration, memory that `earlier` or `elsewhere` in the kernel writes.
    """
    stored = {s.buffer: s for s in earlier if isinstance(s, Store)}
    stored_elsewhere = {s.buffer for s in elsewhere if isinstance(s, Store)}
    loads = {_statement_key(s): s.name for s in earlier if isinstance(s, Load | IndirectLoad | Compute | Iota)}
    merged = _MergedStatements()
    merged.names = {}
    for statement in statements:
        new = rename_arguments(remap_variables(statement, mapping, num_variables), merged.names)
        if isinstance(new, Load | IndirectLoad) and (
            new.buffer in stored_elsewhere or (new.buffer in stored and isinstance(new, IndirectLoad))
        ):
            return None
        if isinstance(new, Load) and new.buffer in stored:
            store = stored[new.buffer]
            if (store.offset, store.loop_strides) != (
                new.offset,
                new.loop_strides,
            ) or new.buffer.disjoint_writes:
                return None
            merged.names[new.name] = store.arg
        elif not isinstance(new, Store | Reduce) and _statement_key(new) in loads:
            merged.names[new.name] = loads[_statement_key(new)]
        else:
            if isinstance(new, Store):
                if new.buffer in stored_elsewhere or (new.buffer in stored and not new.buffer.disjoint_writes):
                    return None
                stored[new.buffer] = new
            elif not isinstance(new, Reduce):
                loads[_statement_key(new)] = new.name
            merged.append(new)
    return merged


def _statement_key(statement: Any) -> tuple[Any, ...]:
    """Return a key that equal statements share, whatever their names."""
    if isinstance(statement, Compute):
        return (statement.dtype, statement.text, statement.args)
    if isinstance(statement, Iota):
        return (statement.dtype, statement.start, statement.step, statement.variable)
    indices = statement.indices if isinstance(statement, IndirectLoad) else ()
    return (id(statement.buffer), statement.offset, statement.loop_strides, indices)


def _touches_stores(statements: Sequence[Statement], epilogue: Sequence[Statement]) -> bool:
    written = {s.buffer for s in statements if isinstance(s, Store)}
    return any(isinstance(s, Load | IndirectLoad | Store) and s.buffer in written for s in epilogue)

"""Data larger than memory: read as blocks of rows, with the types that one pass over the files has found."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from torchpure.errors import InputError

from ._columnar import column_types, num_groups, read_groups
from ._csv import csv_blocks, csv_names, find_fault
from ._files import list_files, merge_types
from ._formats import format_of
from ._partitions import Partitions, find_partitions
from ._table import Table

if TYPE_CHECKING:
    import pyarrow as pa

_FAULT = re.compile(r"In CSV column #(\d+):.*CSV conversion error to (\w+)")
_BYTES_PER_BYTE = {".csv": 3, ".csv.gz": 20}  # of memory for those of the file: columns, features and a copy of these
_COPIES = 3
_WIDER = "int64"  # a column of integers may go on with other numbers


class Types(NamedTuple):
    """What one pass over the files has found."""

    columns: Mapping[str, pa.DataType]  # none of a Parquet or Arrow file, which has its own
    rows: tuple[int, ...]  # of each file


def memory_needed(path: Path, columns: int) -> int:
    """Estimate the bytes of memory to read files at once, from their sizes or the numbers of their rows.

    Raises:
        InputError: a file is damaged.
    """
    return sum(_memory_needed(file, columns) for file in list_files(path))


def _memory_needed(path: Path, columns: int) -> int:
    suffix = format_of(path.name)
    if suffix in _BYTES_PER_BYTE:
        return path.stat().st_size * _BYTES_PER_BYTE[suffix]
    if suffix == ".npz":
        return 0  # its arrays have limits of their own
    return sum(num_groups(path)) * columns * 8 * _COPIES


def num_blocks(path: Path) -> int:
    """Return how many parts of the files can be read in any order: 1 for each CSV file."""
    return sum(_num_parts(file) for file in list_files(path))


def _num_parts(file: Path) -> int:
    return 1 if _is_text(file) else len(num_groups(file))


def _is_text(file: Path) -> bool:
    return format_of(file.name) in _BYTES_PER_BYTE


def find_types(path: Path, names: Sequence[str]) -> Types:
    """Find the type of each column from whole files, and the numbers of rows.

    Raises:
        InputError: a line is wrong, or a column holds numbers in one file and text in another.
    """
    import pyarrow as pa

    files = list_files(path)
    if _is_text(files[0]):
        found = [_find_csv_types(file, names) for file in files]
        merged = merge_types(files, [types for types, _ in found])
        columns = {name: pa.float64() if pa.types.is_null(kind) else kind for name, kind in merged.items()}
        return Types(columns, tuple(rows for _, rows in found))
    rows = tuple(sum(num_groups(file)) for file in files)
    if len(files) == 1:
        return Types({}, rows)
    partitions = find_partitions(path)
    own = merge_types(files, [column_types(file, partitions.in_files(names)) for file in files])
    return Types(own | {name: kind for name, kind in partitions.types.items() if name in names}, rows)


def _find_csv_types(path: Path, names: Sequence[str]) -> tuple[dict[str, pa.DataType], int]:
    import pyarrow as pa

    types: dict[str, pa.DataType] = {}
    wider = {_WIDER: pa.float64()}
    while True:
        rows = 0
        try:
            for block in csv_blocks(path, names, types):
                types = {field.name: field.type for field in block.schema}
                rows += block.num_rows
            return types, rows
        except pa.ArrowInvalid as error:
            fault = _FAULT.search(str(error))
            if fault is None:
                find_fault(path)
                raise InputError(f"{path}: not a csv file: {str(error).splitlines()[0][:200]}") from None
            name = csv_names(path)[int(fault[1])]
            types[name] = wider.get(fault[2], pa.string())


def read_blocks(
    path: Path, names: Sequence[str], types: Types, size: int, order: Sequence[int] | None = None
) -> Iterator[Table]:
    """Yield all rows in tables of about `size` rows; `order` is that of the parts of the files.

    Each table knows the numbers of its rows in the files.

    Raises:
        InputError: a file changed, or is damaged.
    """
    files, partitions = list_files(path), find_partitions(path)
    if len(files) == 1:
        yield from _read_file(files[0], names, types.columns, partitions, size, order)
        return
    starts = [*itertools.accumulate(types.rows, initial=0)][:-1]
    if len(starts) != len(files):
        raise InputError(f"{path}: has other files than before; it changed while it was read")
    tables = _read_files(files, starts, names, types.columns, partitions, size, order)
    yield from _merged(path, tables, size, tuple(zip(files, starts, strict=True)))


def _read_files(
    files: Sequence[Path],
    starts: Sequence[int],
    names: Sequence[str],
    types: Mapping[str, pa.DataType],
    partitions: Partitions,
    size: int,
    order: Sequence[int] | None,
) -> Iterator[Table]:
    """Yield the rows of several files, with their numbers in all, and with common types."""
    import pyarrow as pa

    schema = pa.schema([(name, types[name]) for name in names])
    places = [(number, part) for number, file in enumerate(files) for part in range(_num_parts(file))]
    ordered = places if order is None else [places[place] for place in order]
    for number, group in itertools.groupby(ordered, key=lambda place: place[0]):
        for table in _read_file(files[number], names, types, partitions, size, [part for _, part in group]):
            assert table.rows is not None
            yield Table(files[number], table.arrow.cast(schema, safe=False), table.rows + starts[number])


def _merged(path: Path, tables: Iterator[Table], size: int, parts: tuple[tuple[Path, int], ...]) -> Iterator[Table]:
    """Join small tables to tables of about `size` rows, so that the rows of many small files are mixed."""
    pending: list[Table] = []
    for table in tables:
        pending.append(table)
        if sum(part.arrow.num_rows for part in pending) >= size:
            yield _concatenated(path, pending, parts)
            pending = []
    if pending:
        yield _concatenated(path, pending, parts)


def _concatenated(path: Path, tables: Sequence[Table], parts: tuple[tuple[Path, int], ...]) -> Table:
    import pyarrow as pa

    rows = [table.rows for table in tables if table.rows is not None]
    return Table(path, pa.concat_tables([table.arrow for table in tables]), torch.cat(rows), parts)


def _read_file(
    path: Path,
    names: Sequence[str],
    types: Mapping[str, pa.DataType],
    partitions: Partitions,
    size: int,
    order: Sequence[int] | None,
) -> Iterator[Table]:
    if _is_text(path):
        start = 0
        pending: list[Any] = []
        for batch in csv_blocks(path, names, types):
            pending.append(batch)
            if sum(part.num_rows for part in pending) >= size:
                yield _table(path, pending, start)
                start, pending = start + sum(part.num_rows for part in pending), []
        if pending:
            yield _table(path, pending, start)
        return
    for batch, start in read_groups(path, partitions.in_files(names), size, order):
        yield _table(path, [partitions.complete(path, batch, names)], start)


def _table(path: Path, batches: list[Any], start: int) -> Table:
    import pyarrow as pa

    arrow = pa.Table.from_batches(batches)
    return Table(path, arrow, torch.arange(start, start + arrow.num_rows))

"""Files larger than memory: read as blocks of rows, with the types that one pass over the file has found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchpure.errors import InputError

from ._columnar import num_groups, read_groups
from ._csv import csv_blocks, csv_names, find_fault
from ._formats import format_of
from ._table import Table

if TYPE_CHECKING:
    import pyarrow as pa

Types = Mapping[str, "pa.DataType"]
_FAULT = re.compile(r"In CSV column #(\d+):.*CSV conversion error to (\w+)")
_BYTES_PER_BYTE = {".csv": 3, ".csv.gz": 20}  # of memory for those of the file: columns, features and a copy of these
_COPIES = 3


def memory_needed(path: Path, columns: int) -> int:
    """Estimate the bytes of memory to read a file at once, from its size or the number of its rows.

    Raises:
        InputError: the file is damaged.
    """
    suffix = format_of(path.name)
    if suffix in _BYTES_PER_BYTE:
        return path.stat().st_size * _BYTES_PER_BYTE[suffix]
    if suffix == ".npz":
        return 0  # its arrays have limits of their own
    return sum(num_groups(path)) * columns * 8 * _COPIES


def num_blocks(path: Path) -> int:
    """Return how many parts of a file can be read in any order: 1 for a CSV file."""
    return 1 if format_of(path.name) in _BYTES_PER_BYTE else len(num_groups(path))


def find_types(path: Path, names: Sequence[str]) -> Types:
    """Find the type of each column from the whole file.

    Raises:
        InputError: a line is wrong.
    """
    import pyarrow as pa

    if format_of(path.name) not in _BYTES_PER_BYTE:
        return {}
    types: dict[str, pa.DataType] = {}
    wider = {"int64": pa.float64()}
    while True:
        try:
            for block in csv_blocks(path, names, types):
                types = {field.name: field.type for field in block.schema}
            return {name: pa.float64() if pa.types.is_null(kind) else kind for name, kind in types.items()}
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
    """Yield all rows in tables of about `size` rows; `order` is that of the parts of the file.

    Each table knows the numbers of its rows in the file.

    Raises:
        InputError: the file changed, or is damaged.
    """
    if format_of(path.name) in _BYTES_PER_BYTE:
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
    for batch, start in read_groups(path, list(names), size, order):
        yield _table(path, [batch], start)


def _table(path: Path, batches: list[Any], start: int) -> Table:
    import pyarrow as pa

    arrow = pa.Table.from_batches(batches)
    return Table(path, arrow, torch.arange(start, start + arrow.num_rows))

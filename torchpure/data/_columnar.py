"""Parquet and Arrow (Feather) files, whose sizes are checked before any column is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchpure.errors import InputError

from ._native_file import native_file

if TYPE_CHECKING:
    import pyarrow as pa

MAX_NUMBERS = 2**28  # values in the columns that are read: two gigabytes of float64


def check_size(path: Path, rows: int, columns: int) -> None:
    """Check that the values to read fit in memory.

    Raises:
        InputError: there are too many.
    """
    if rows * columns > MAX_NUMBERS:
        raise InputError(
            f"{path}: {rows} rows of {columns} columns are more than {MAX_NUMBERS} values; --inputs a,b chooses columns"
        )


def parquet_names(path: Path) -> list[str]:
    """Read the names of the columns from the footer.

    Raises:
        InputError: the file is no Parquet file.
    """
    with _parquet(path) as file:
        return list(file.schema_arrow.names)


def read_parquet(path: Path, names: list[str]) -> pa.Table:
    """Read some columns.

    Raises:
        InputError: the file is no Parquet file, or is too large.
    """
    with _parquet(path) as file:
        check_size(path, file.metadata.num_rows, len(names))
        return file.read(columns=names).select(names)


def arrow_names(path: Path) -> list[str]:
    """Read the names of the columns from the schema.

    Raises:
        InputError: the file is no Arrow file.
    """
    with _arrow(path) as file:
        return list(file.schema.names)


def read_arrow(path: Path, names: list[str]) -> pa.Table:
    """Read some columns.

    Raises:
        InputError: the file is no Arrow file, or is too large.
    """
    import pyarrow as pa

    with _arrow(path) as file:
        batches, rows = [], 0
        for number in range(file.num_record_batches):
            batch = file.get_batch(number).select(names)
            batch.validate()
            rows += batch.num_rows
            check_size(path, rows, len(names))
            batches.append(batch)
        schema = pa.schema([file.schema.field(name) for name in names])
        return pa.Table.from_batches(batches, schema)


def column_types(path: Path, names: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the types of some columns of a Parquet or Arrow file.

    Raises:
        InputError: the file is damaged.
    """
    is_parquet = path.suffix.lower() == ".parquet"
    with (_parquet if is_parquet else _arrow)(path) as file:
        schema = file.schema_arrow if is_parquet else file.schema
        return {name: schema.field(name).type for name in names}


def num_groups(path: Path) -> list[int]:
    """Return the number of rows of each part of a Parquet or Arrow file.

    Raises:
        InputError: the file is damaged.
    """
    if path.suffix.lower() == ".parquet":
        with _parquet(path) as file:
            return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    with _arrow(path) as file:
        return [file.get_batch(number).num_rows for number in range(file.num_record_batches)]


def read_groups(
    path: Path, names: list[str], size: int, order: Sequence[int] | None
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the rows part by part, in batches of at most `size` rows, with the number of the first row of each.

    Raises:
        InputError: the file is damaged.
    """
    rows = num_groups(path)
    starts = list(itertools.accumulate(rows, initial=0))
    is_parquet = path.suffix.lower() == ".parquet"
    with (_parquet if is_parquet else _arrow)(path) as file:
        for number in range(len(rows)) if order is None else order:
            start = starts[number]
            if is_parquet:
                batches = file.iter_batches(size, row_groups=[number], columns=names)
            else:
                whole = file.get_batch(number)
                batches = (whole.slice(first, size) for first in range(0, whole.num_rows, size))
            for batch in batches:
                yield batch.select(names), start
                start += batch.num_rows


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with native_file(path) as file, pq.ParquetFile(file) as table:
            yield table
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0][:300]}") from None


@contextmanager
def _arrow(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    try:
        with native_file(path) as file, pa.ipc.open_file(file) as table:
            yield table
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Arrow file: {str(error).splitlines()[0][:300]}") from None

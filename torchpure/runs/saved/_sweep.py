"""The results of a sweep: `results.jsonl` or `results.parquet`, a row for each run with any columns."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torchpure.errors import InputError

from ._files import open_file

LINES, PARQUET = "results.jsonl", "results.parquet"
MAX_BYTES = 2**28
MAX_LINE = 2**20
MAX_ROWS = 100_000
MAX_COLUMNS = 200

Cell = str | float | int | bool | None


class SweepTable(NamedTuple):
    """A row for each run of a sweep."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


def is_sweep(folder: Path) -> bool:
    """Return whether a folder has the results of a sweep."""
    return any((folder / name).is_file() for name in (LINES, PARQUET))


def read_sweep(folder: Path) -> SweepTable:
    """Read the results of a sweep.

    Raises:
        InputError: the file is too large or damaged, or Parquet cannot be read here.
    """
    lines = (folder / LINES).is_file()
    path = folder / (LINES if lines else PARQUET)
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for row in _json_rows(folder, path) if lines else _parquet_rows(folder, path):
        names |= dict.fromkeys(row)
        rows.append(row)
        if len(rows) > MAX_ROWS or len(names) > MAX_COLUMNS:
            raise InputError(f"{path}: more than {MAX_ROWS} rows or {MAX_COLUMNS} columns")
    return SweepTable(tuple(names), [tuple(_cell(row.get(name)) for name in names) for row in rows])


def _json_rows(folder: Path, path: Path) -> Iterator[dict[str, Any]]:
    with open_file(folder, LINES, MAX_BYTES) as (file, _):
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise InputError(f"{path}: line {number} has more than {MAX_LINE} bytes")
            if not line.endswith(b"\n"):
                return  # the sweep is still writing it
            yield _flat(path, number, line)


def _flat(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: line {number} is not JSON: {str(error)[:100]}") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}: line {number}: wanted an object, got {str(row)[:60]}")
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}.{inner}": part for inner, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _parquet_rows(folder: Path, path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'torchpure[parquet]'") from None
    try:
        with open_file(folder, PARQUET, MAX_BYTES) as (file, _):
            content = pa.BufferReader(file.read())  # Arrow's threads read it without Python's lock
        with pq.ParquetFile(content) as table:
            if table.metadata.num_rows > MAX_ROWS or len(table.schema_arrow.names) > MAX_COLUMNS:
                raise InputError(f"{path}: more than {MAX_ROWS} rows or {MAX_COLUMNS} columns")
            num_bytes = 0
            for batch in table.iter_batches(batch_size=64):  # a small file may hold one long text many times
                num_bytes += batch.nbytes
                if num_bytes > MAX_BYTES:
                    raise InputError(f"{path}: more than {MAX_BYTES} bytes of values")
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error)[:200]}") from None


def _cell(value: object) -> Cell:
    return value if isinstance(value, str | int | float | bool | None) else str(value)[:1000]

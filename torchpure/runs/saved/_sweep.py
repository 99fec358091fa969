"""The results of a sweep: `results.jsonl` or `results.parquet`, a row for each run with any columns."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchpure.errors import InputError

from ._files import open_file, read_bytes

LINES, PARQUET, RESULT, CURVES = "results.jsonl", "results.parquet", "result.json", "curves.parquet"
CURVE_COLUMNS = ("index", "step", "loss", "validation_loss")
MAX_CURVE_ROWS = 100_000  # of the members that are taken
MAX_SECONDS = 1e12
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


def read_curves(folder: Path, members: Sequence[int]) -> dict[str, np.ndarray]:
    """Read the curves of some members, in their order: index, step, loss and validation_loss as columns; {} without.

    Raises:
        InputError: the file is too large or damaged, or has other columns.
    """
    if not os.path.lexists(folder / CURVES) or not members:
        return {}
    found: list[dict[str, np.ndarray]] = []
    with _opened(folder, CURVES, MAX_BYTES) as table:
        names = [name for name in CURVE_COLUMNS if name in table.schema_arrow.names]
        if not {"index", "step"} <= {*names}:
            raise InputError(f"{folder / CURVES}: wanted the columns {', '.join(CURVE_COLUMNS)}")
        for batch in table.iter_batches(batch_size=2**16, columns=names):
            columns = {name: _numbers(folder / CURVES, name, batch.column(name)) for name in names}
            kept = np.isin(columns["index"], members)
            found.append({name: values[kept] for name, values in columns.items()})
            if sum(len(part["step"]) for part in found) > MAX_CURVE_ROWS:
                raise InputError(f"{folder / CURVES}: more than {MAX_CURVE_ROWS} points of {len(members)} members")
    joined = {name: np.concatenate([part[name] for part in found]) for name in names} if found else {}
    order = np.concatenate([(joined["index"] == member).nonzero()[0] for member in members]) if joined else None
    return {name: values[order] for name, values in joined.items()}


def _numbers(path: Path, name: str, column: Any) -> np.ndarray:
    import pyarrow as pa

    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(f"{path}: column `{name}` holds {str(column.type)[:40]}; wanted numbers")
    return column.to_numpy(zero_copy_only=False)


def read_sweep_result(folder: Path) -> Mapping[str, Any]:
    """Read `result.json` of a sweep: status, and seconds as finite numbers; {} before the end of its first part.

    Raises:
        InputError: the file is too large, no regular file, or not what a sweep writes.
    """
    path = folder / RESULT
    if not os.path.lexists(path):
        return {}
    try:
        result = json.loads(read_bytes(folder, RESULT, MAX_LINE))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON: {str(error)[:100]}") from None
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        raise InputError(f"{path}: wanted the result of a sweep with its `status`")
    seconds = {name: result[name] for name in ("seconds", "processor_seconds") if name in result}
    for name, value in seconds.items():
        if not isinstance(value, int | float) or not 0 <= value < MAX_SECONDS:
            raise InputError(f"{path}: `{name}`: wanted a number of seconds, got {str(value)[:60]}")
    return {"status": result["status"][:40], **seconds}


def best_row(table: SweepTable) -> Mapping[str, Cell] | None:
    """Return the row with the least loss on the validation points, if there are some, else on the test points."""
    losses = [name for name in ("validation_loss", "test_loss") if name in table.columns]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows] if losses else []
    known = [(value, row) for row in rows if isinstance(value := row[losses[0]], int | float) and value == value]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def count_ends(ends: Sequence[str], total: int) -> dict[str, int]:
    """Count how members ended; those of `total` that have no end have not begun.

    >>> count_ends(["done", "done"], 5)
    {'done': 2, 'not begun': 3}
    """
    counts = {end: ends.count(end) for end in dict.fromkeys(ends)}
    return counts | ({"not begun": total - len(ends)} if total > len(ends) else {})


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
    with _opened(folder, PARQUET, MAX_BYTES) as table:
        if table.metadata.num_rows > MAX_ROWS or len(table.schema_arrow.names) > MAX_COLUMNS:
            raise InputError(f"{path}: more than {MAX_ROWS} rows or {MAX_COLUMNS} columns")
        num_bytes = 0
        for batch in table.iter_batches(batch_size=64):  # a small file may hold one long text many times
            num_bytes += batch.nbytes
            if num_bytes > MAX_BYTES:
                raise InputError(f"{path}: more than {MAX_BYTES} bytes of values")
            yield from batch.to_pylist()


@contextmanager
def _opened(folder: Path, name: str, max_bytes: int) -> Iterator[Any]:
    """Open a Parquet file of a folder."""
    path = folder / name
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'torchpure[parquet]'") from None
    try:
        with open_file(folder, name, max_bytes) as (file, _):
            content = pa.BufferReader(file.read())  # Arrow's threads read it without Python's lock
        with pq.ParquetFile(content) as table:
            yield table
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error)[:200]}") from None


def _cell(value: object) -> Cell:
    return value if isinstance(value, str | int | float | bool | None) else str(value)[:1000]

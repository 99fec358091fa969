"""The three formats of data files: list the columns, and read some of them as float64."""

import csv
import math
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from torchpure.errors import InputError

from ._npz import archive, members, read

MAX_ROWS = 10_000_000
MAX_NUMBERS = 2**27  # a gigabyte
MAX_LINE = 2**22
_BOOLEANS = {"true": 1.0, "false": 0.0}


class Format(NamedTuple):
    """How to read one format."""

    names: Callable[[Path], list[str]]
    values: Callable[[Path, list[str]], list[Tensor]]  # one float64 tensor per name, shape (rows,)


def check_finite(path: Path, name: str, column: Tensor) -> None:
    """Check that the numbers of a column are finite.

    Raises:
        InputError: a number is NaN or infinite.
    """
    bad = (~column.isfinite()).nonzero()
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{path}: column `{name}`, row {row} (counted from 0): wanted a finite number, got {column[row]:g}"
        )


def _csv_names(path: Path) -> list[str]:
    with _csv_rows(path) as rows:
        header = next((row for row in rows if row), None)
    if header is None:
        raise InputError(f"{path}: the file is empty; wanted a header line and rows of numbers")
    return [name.strip() for name in header]


def _csv_values(path: Path, names: list[str]) -> list[Tensor]:
    columns = [array("d") for _ in names]
    with _csv_rows(path) as rows:
        header = [name.strip() for name in next(row for row in rows if row)]
        places = {name: index for index, name in enumerate(header)}
        for row in filter(None, rows):
            if len(row) != len(header):
                raise InputError(f"{path}: line {rows.line_num} has {len(row)} fields; the header has {len(header)}")
            for name, column in zip(names, columns, strict=True):
                column.append(_csv_number(path, name, rows.line_num, row[places[name]]))
            if columns and len(columns[0]) * len(columns) > MAX_NUMBERS:
                raise InputError(f"{path}: more than {MAX_NUMBERS} numbers; --inputs a,b chooses columns")
            if columns and len(columns[0]) > MAX_ROWS:
                raise InputError(f"{path}: more than {MAX_ROWS} rows")
    return [torch.tensor(column, dtype=torch.float64) for column in columns]


def _csv_number(path: Path, name: str, line: int, text: str) -> float:
    word = text.strip().lower()
    try:
        number = _BOOLEANS[word] if word in _BOOLEANS else float(text) if "_" not in text else None
    except ValueError:
        number = None
    if number is None or not math.isfinite(number):
        what = "a finite number" if number is not None else "a number"
        got = repr(text[:40]) if text.strip() else "nothing"
        choose = "" if number is not None else "; --inputs a,b chooses the columns to use"
        raise InputError(f"{path}: column `{name}`, line {line}: wanted {what}, got {got}{choose}")
    return number


@contextmanager
def _csv_rows(path: Path) -> Iterator[Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield csv.reader(_lines(path, file))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{path}: not UTF-8 text (it has the byte {byte:#x}); wanted a csv file in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a csv file: {error}") from None


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise InputError(f"{path}: a line has more than {MAX_LINE} characters; wanted a csv file")
        yield line


def _npz_names(path: Path) -> list[str]:
    with archive(path) as opened:
        return [name for key, member in members(path, opened) for name in member.columns(key)]


def _npz_values(path: Path, names: list[str]) -> list[Tensor]:
    wanted, found = {*names}, dict[str, Any]()
    with archive(path) as opened:
        for key, member in members(path, opened):
            if not wanted.isdisjoint(member.columns(key)):
                found |= read(path, opened, key, member)
    lengths = {name: len(found[name]) for name in names}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError(f"{path}: wanted columns of one length, got {shown[:200]}")
    return [_numpy_column(path, name, found[name]) for name in names]


def _numpy_column(path: Path, name: str, values: Any) -> Tensor:
    import numpy as np

    if values.dtype.kind not in "biuf":
        first = f" (row 0 is {str(values[0])[:40]!r})" if len(values) else ""
        raise InputError(
            f"{path}: column `{name}` holds {values.dtype}{first}; wanted numbers; --inputs a,b chooses columns"
        )
    if len(values) > MAX_ROWS:
        raise InputError(f"{path}: more than {MAX_ROWS} rows")
    with np.errstate(over="ignore"):  # a wider float may not fit: it is not finite then
        column = torch.from_numpy(np.array(values, dtype=np.float64))
    check_finite(path, name, column)
    return column


def _parquet_names(path: Path) -> list[str]:
    with _parquet(path) as file:
        return list(file.schema_arrow.names)


def _parquet_values(path: Path, names: list[str]) -> list[Tensor]:
    with _parquet(path) as file:
        if file.metadata.num_rows > MAX_ROWS:
            raise InputError(f"{path}: more than {MAX_ROWS} rows")
        table = file.read(columns=names)
        return [_parquet_column(path, name, table.column(name)) for name in names]


def _parquet_column(path: Path, name: str, column: Any) -> Tensor:
    import pyarrow as pa

    kind = column.type
    type_checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    if not any(is_type(kind) for is_type in type_checks):
        first = f" (row 0 is {str(column[0].as_py())[:40]!r})" if len(column) else ""
        raise InputError(f"{path}: column `{name}` holds {kind}{first}; wanted numbers; --inputs a,b chooses columns")
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise InputError(f"{path}: column `{name}`, row {row} (counted from 0): wanted a number, got nothing")
    values = torch.tensor(column.cast(pa.float64(), safe=False).to_numpy(), dtype=torch.float64)
    check_finite(path, name, values)
    return values


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'torchpure[parquet]'") from None
    try:
        with path.open("rb") as file, pq.ParquetFile(file) as table:
            yield table
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from None


FORMATS = {
    ".csv": Format(_csv_names, _csv_values),
    ".npz": Format(_npz_names, _npz_values),
    ".parquet": Format(_parquet_names, _parquet_values),
}

"""The three formats of data files: list the columns, and read some of them as float64."""

import csv
import math
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure.errors import InputError

MAX_ROWS = 10_000_000
_NUMPY_ERRORS = (ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error)


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
        indices = [header.index(name) for name in names]
        for row in filter(None, rows):
            if len(row) != len(header):
                raise InputError(f"{path}: line {rows.line_num} has {len(row)} fields; the header has {len(header)}")
            for name, index, column in zip(names, indices, columns, strict=True):
                column.append(_csv_number(path, name, rows.line_num, row[index]))
            if columns and len(columns[0]) > MAX_ROWS:
                raise InputError(f"{path}: more than {MAX_ROWS} rows")
    return [torch.tensor(column, dtype=torch.float64) for column in columns]


def _csv_number(path: Path, name: str, line: int, text: str) -> float:
    try:
        number = float(text) if "_" not in text else None
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
            yield csv.reader(file)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); wanted a csv file in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a csv file: {error}") from None


def _npz_names(path: Path) -> list[str]:
    with _npz_arrays(path) as arrays:
        return [name for key in arrays.files for name in _npz_columns(path, key, arrays[key])]


def _npz_values(path: Path, names: list[str]) -> list[Tensor]:
    found: dict[str, Any] = {}
    with _npz_arrays(path) as arrays:
        for key in arrays.files:
            if any(name == key or name.startswith(f"{key}_") for name in names):
                found |= _npz_columns(path, key, arrays[key])
    lengths = {name: len(found[name]) for name in names}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError(f"{path}: wanted columns of one length, got {shown[:200]}")
    return [_numpy_column(path, name, found[name]) for name in names]


@contextmanager
def _npz_arrays(path: Path) -> Iterator[Any]:
    import numpy as np

    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: not an .npz archive; wanted what numpy.savez writes")
            with arrays:
                yield arrays
    except InputError:
        raise
    except _NUMPY_ERRORS as error:
        raise InputError(f"{path}: not a readable .npz archive of numbers: {error}") from None


def _npz_columns(path: Path, key: str, values: Any) -> dict[str, Any]:
    if values.ndim == 1:
        return {key: values}
    if values.ndim == 2 and values.shape[1] <= 1000:
        return {f"{key}_{index}": values[:, index] for index in range(values.shape[1])}
    raise InputError(f"{path}: array `{key}` has shape {values.shape}; wanted (rows,) or (rows, columns up to 1000)")


def _numpy_column(path: Path, name: str, values: Any) -> Tensor:
    import numpy as np

    if values.dtype.kind not in "biuf":
        first = f" (row 0 is {str(values[0])[:40]!r})" if len(values) else ""
        raise InputError(
            f"{path}: column `{name}` holds {values.dtype}{first}; wanted numbers; --inputs a,b chooses columns"
        )
    if len(values) > MAX_ROWS:
        raise InputError(f"{path}: more than {MAX_ROWS} rows")
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

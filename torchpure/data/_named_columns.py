"""Read columns of numbers by name, without a target; write a table to a new file."""

from __future__ import annotations

import csv
import io
import itertools
import os
import secrets
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from torchpure.errors import InputError

from ._table import read_table
from ._values import numbers

if TYPE_CHECKING:
    import pyarrow as pa


def read_columns(path: Path, wanted: Sequence[str]) -> Tensor:
    """Read the named columns of numbers, (rows, columns), float64.

    Raises:
        InputError: the file cannot be read, or a column is missing: the nearest names are shown.
    """
    table = read_table(path, wanted)
    return torch.stack([numbers(table, name) for name in wanted], dim=-1)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table; see `write_blocks`.

    Raises:
        InputError: see there.
    """
    write_blocks(path, iter([table]))


def write_blocks(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write tables of the same columns one after another; a file of that name is replaced at the end, in one step.

    Law: read_columns(path, names) has the bits of the float64 columns that write_table(path, table) wrote.

    Raises:
        InputError: the suffix is unknown, or the place cannot be written.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise InputError(f"{str(path)[:200]!r}: wanted a name that ends with {', '.join(_WRITERS)}")
    if os.path.lexists(path) and not path.is_file():
        raise InputError(f"{path}: exists, and is no regular file")
    temporary = path.parent / f".{path.name[:40]}-{secrets.token_hex(4)}.partial"
    try:
        with temporary.open("xb") as file:
            write(file, tables)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    for number, table in enumerate(tables):
        if not number:
            writer.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=2**16):
            writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    text.detach()


def _write_npz(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    import numpy as np
    import pyarrow as pa

    table = pa.concat_tables([*tables])  # an array of NumPy has all rows
    with zipfile.ZipFile(file, "w") as archive:  # numpy.savez takes no column named `file`
        for name, column in zip(table.column_names, table.columns, strict=True):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, _array(column), allow_pickle=False)


def _array(column: pa.ChunkedArray) -> Any:
    """Return a NumPy array without Python objects; a missing text is empty."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]")
    values = column.to_numpy()
    return np.array(["" if value is None else str(value) for value in values]) if values.dtype == object else values


def _write_parquet(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    import pyarrow.parquet as pq

    first = next(tables)
    with pq.ParquetWriter(file, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table.cast(first.schema))


def _write_arrow(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    import pyarrow as pa

    first = next(tables).unify_dictionaries()  # a file has one dictionary for each column
    options = pa.ipc.IpcWriteOptions(compression="lz4" if pa.Codec.is_available("lz4_frame") else None)
    with pa.ipc.new_file(file, first.schema, options=options) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table.cast(first.schema))


_WRITERS = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".npz": _write_npz,
    ".feather": _write_arrow,
    ".arrow": _write_arrow,
}

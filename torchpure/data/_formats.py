"""The formats of data files: list the columns, and read some of them into an Arrow table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torchpure.errors import InputError

from ._columnar import arrow_names, check_size, parquet_names, read_arrow, read_parquet
from ._csv import csv_names, read_csv
from ._npz import archive, members, read

if TYPE_CHECKING:
    import pyarrow as pa


class Format(NamedTuple):
    """How to read one format."""

    names: Callable[[Path], list[str]]
    read: Callable[[Path, list[str]], pa.Table]


def format_of(name: str) -> str | None:
    """Return the suffix that says the format of a file, or None.

    >>> format_of("data/Prices.CSV.gz"), format_of("2*x")
    ('.csv.gz', None)
    """
    return next((suffix for suffix in FORMATS if name.lower().endswith(suffix)), None)


def _npz_names(path: Path) -> list[str]:
    with archive(path) as opened:
        return [name for key, member in members(path, opened) for name in member.columns(key)]


def _npz_table(path: Path, names: list[str]) -> pa.Table:
    import pyarrow as pa

    wanted, found = {*names}, dict[str, Any]()
    with archive(path) as opened:
        for key, member in members(path, opened):
            if not wanted.isdisjoint(member.columns(key)):
                found |= read(path, opened, key, member)
    lengths = {name: len(found[name]) for name in names}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError(f"{path}: wanted columns of one length, got {shown[:200]}")
    check_size(path, max(lengths.values(), default=0), len(names))
    return pa.table({name: _numpy_column(path, name, found[name]) for name in names})


def _numpy_column(path: Path, name: str, values: Any) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    kind = values.dtype.kind
    if kind not in "biufUM" or values.dtype.name in ("datetime64", "datetime64[generic]"):
        first = f" (row 0 is {str(values[0])[:40]!r})" if len(values) else ""
        raise InputError(
            f"{path}: column `{name}` holds {values.dtype}{first}; wanted numbers, text or dates; "
            "--inputs a,b chooses columns"
        )
    if kind == "f":
        with np.errstate(over="ignore"):  # a wider float may not fit: it is not finite then
            return pa.array(values.astype(np.float64))
    if kind == "M":
        return pa.array(values.astype("datetime64[us]"))
    return (
        pa.array(values.tolist(), pa.string())
        if kind == "U"
        else pa.array(values.astype(values.dtype.newbyteorder("=")))
    )


FORMATS = {
    ".csv": Format(csv_names, read_csv),
    ".csv.gz": Format(csv_names, read_csv),
    ".npz": Format(_npz_names, _npz_table),
    ".parquet": Format(parquet_names, read_parquet),
    ".feather": Format(arrow_names, read_arrow),
    ".arrow": Format(arrow_names, read_arrow),
}

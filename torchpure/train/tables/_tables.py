"""Tables of Polars, DuckDB, pandas or pyarrow as the data of a fit, through the Arrow C stream interface."""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

METHOD = "__arrow_c_stream__"


def is_table(data: object) -> bool:
    """Return whether data have the Arrow C stream interface."""
    return hasattr(data, METHOD)


def read_table(data: Any, columns: Sequence[str] | None, dtype: torch.dtype | None, *, for_module: bool) -> Any:
    """Return columns of a table, by default all: for a module (inputs, target), else a dict.

    For a module, the last column is the target, (rows, 1), and the others are the inputs, (rows, columns), all of
    `dtype`. A loss function gets each column as a tensor, (rows,); numbers with a fraction have `dtype`.

    Raises:
        ValueError: a column is missing, or a value in it.
        TypeError: `data` is no table though columns are given, or a column has no numbers.
    """
    if not is_table(data):
        raise TypeError(f"fit: columns= is for tables with {METHOD}, got data of type {type(data).__name__}")
    import pyarrow as pa

    table = pa.RecordBatchReader.from_stream(data).read_all()
    return batch_of(table, check_columns("table", columns, table.column_names), dtype, for_module=for_module)


def check_columns(what: str, columns: Sequence[str] | None, present: Sequence[str]) -> list[str]:
    """Return the columns to take, by default all.

    Raises:
        ValueError: one is missing.
        TypeError: they are no list.
    """
    if isinstance(columns, str):
        raise TypeError(f"fit: columns must be a list of names, got {columns!r}: pass [{columns!r}, …]")
    names = list(present if columns is None else columns)
    for name in names:
        if name not in present:
            close = difflib.get_close_matches(str(name), present, n=1)
            guess = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"fit: the {what} has no column {name!r}{guess}; it has {', '.join(present)[:200]}")
    return names


def batch_of(table: Any, names: Sequence[str], dtype: torch.dtype | None, *, for_module: bool) -> Any:
    """Return columns of a pyarrow table as tensors: see `read_table`."""
    tensors = {name: _to_tensor(name, table.column(name), dtype, whole=for_module) for name in names}
    if not for_module or len(names) < 2:
        return tensors
    *inputs, target = tensors.values()
    return torch.stack(inputs, dim=1), target.unsqueeze(1)


def _to_tensor(name: str, column: Any, dtype: torch.dtype | None, *, whole: bool) -> Tensor:
    """Convert a column; with `whole`, integers and booleans get `dtype` too."""
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise TypeError(
            f"fit: column {name!r} holds {kind}: wanted numbers; "
            "torchpure.data.fit_columns and encode make numbers of text and dates"
        )
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(f"fit: column {name!r} has no value in row {row} (counted from 0): fill it, or drop the row")
    tensor = torch.tensor(column.to_numpy())
    return tensor.to(dtype) if dtype is not None and (whole or tensor.is_floating_point()) else tensor

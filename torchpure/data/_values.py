"""Columns of a table as numbers, days and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from torchpure.errors import InputError

from ._csv import MISSING, describe_number
from ._domain import LARGEST
from ._kinds import kind_of_type
from ._table import Table

if TYPE_CHECKING:
    import pyarrow as pa

MICROSECONDS_PER_DAY = 86_400_000_000


class Words(NamedTuple):
    """A column of categories."""

    codes: Tensor  # int64, (rows,): an index into `names`; -1 where the value is missing
    names: tuple[str, ...]


def kind_of(table: Table, name: str) -> str:
    """Return what a column holds: number, boolean, time, text, or nothing but missing values.

    Raises:
        InputError: it holds something else.
    """
    kind = _plain(table, name).type
    word = kind_of_type(kind)
    if word is not None:
        return word
    column = table.arrow.column(name)
    first = f" (row 0 is {str(column[0].as_py())[:40]!r})" if len(column) else ""
    raise InputError(
        f"{table.path}: column `{name}` holds {kind}{first}; wanted numbers, text, booleans or dates; "
        "--inputs a,b chooses columns"
    )


def numbers(table: Table, name: str) -> Tensor:
    """Return a column of numbers or booleans, float64, (rows,); a missing value is NaN.

    Raises:
        InputError: the column holds something else, or a number is infinite or too large.
    """
    import pyarrow as pa

    if kind_of(table, name) not in ("number", "boolean", "nothing"):
        refuse(table, name, first_present(table, name))
    column = _plain(table, name).cast(pa.float64(), safe=False)
    values = torch.tensor(column.fill_null(float("nan")).to_numpy(), dtype=torch.float64)
    infinite = values.isinf()
    if infinite.any():
        refuse(table, name, int(infinite.nonzero()[0]))
    if (values.abs() > LARGEST).any():
        raise InputError(f"{table.path}: column `{name}` has numbers larger than {LARGEST:g}")
    return values


def days(table: Table, name: str) -> Tensor:
    """Return a column of dates or times as days since 1970, float64, (rows,); a missing value is NaN.

    Text is read as in a CSV file.

    Raises:
        InputError: the column holds something else.
    """
    import pyarrow as pa

    kind = kind_of(table, name)
    if kind not in ("time", "text", "nothing"):
        _refuse_date(table, name, first_present(table, name))
    column = _dates_of_text(table, name) if kind == "text" else _plain(table, name)
    try:
        ticks = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise InputError(f"{table.path}: column `{name}`: {str(error)[:200]}") from None
    return torch.tensor(ticks.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy()) / MICROSECONDS_PER_DAY


def words(table: Table, name: str) -> Words:
    """Return a column as words. Whole numbers are written without a point, and booleans as true and false.

    Raises:
        InputError: the column holds dates, or something that cannot be a category.
    """
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made when it is imported

    kind, column = kind_of(table, name), _plain(table, name)
    if kind == "time":
        raise InputError(f"{table.path}: column `{name}` holds dates; wanted text, whole numbers or booleans")
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    codes = torch.tensor(encoded.indices.fill_null(-1).to_numpy(), dtype=torch.int64)
    return Words(codes, tuple(encoded.dictionary.to_pylist()))


def missing(table: Table, name: str) -> Tensor:
    """Return which values of a column are missing, bool, (rows,)."""
    column = _plain(table, name)
    return torch.tensor(column.is_null(nan_is_null=True).to_numpy(), dtype=torch.bool)


def first_present(table: Table, name: str) -> int:
    """Return the first row where a column has a value."""
    present = (~missing(table, name)).nonzero()
    return int(present[0]) if len(present) else 0


def refuse(table: Table, name: str, row: int, way_out: str = "", *, date: bool = False) -> NoReturn:
    """Refuse a value that is missing, or is no finite number.

    Raises:
        InputError: always; it says where, what was wanted and what came.
    """
    place, text = table.place(row, name)
    kind = kind_of(table, name)
    if date or (kind in ("text", "time") and missing(table, name)[row]):
        problem = (
            f"wanted {'a date' if date or kind == 'time' else 'text'}, got {repr(text[:40]) if text else 'nothing'}"
        )
    else:
        problem = describe_number(text) + ("; --inputs a,b chooses columns" if kind == "text" else "")
    raise InputError(f"{table.path}: column `{name}`, {place}: {problem}{way_out}")


def _dates_of_text(table: Table, name: str) -> pa.ChunkedArray:
    """Read text as dates or times: all with a time zone, or all without one."""
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made when it is imported
    column = _plain(table, name).cast(pa.string())
    column = pc.if_else(pc.is_in(column, value_set=pa.array(MISSING)), pa.scalar(None, pa.string()), column)
    # microseconds first: nanoseconds end in the year 2262
    kinds = [pa.timestamp(unit, tz=zone) for unit in ("us", "ns") for zone in (None, "UTC")]
    found = next((kind for kind in kinds if _fits(column, kind)), None)
    if found is None:
        rows = range(len(column))
        wrong = (row for row in rows if not any(_fits(column.slice(row, 1), kind) for kind in kinds))
        _refuse_date(table, name, next(wrong, first_present(table, name)))
    return column.cast(found)


def _fits(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    import pyarrow as pa

    try:
        column.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _refuse_date(table: Table, name: str, row: int) -> NoReturn:
    place, text = table.place(row, name)
    raise InputError(f"{table.path}: column `{name}`, {place}: wanted a date such as 2026-01-31, got {text[:40]!r}")


def _plain(table: Table, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    column = table.arrow.column(name)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column

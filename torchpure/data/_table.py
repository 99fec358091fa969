"""Choose columns of a data file by name, and read them."""

from __future__ import annotations

import difflib
import itertools
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from torchpure.errors import InputError

from ._columnar import check_size
from ._csv import csv_place
from ._files import check_same_names, list_files, merge_types
from ._formats import FORMATS, Format, format_of
from ._partitions import find_partitions

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 1000
MAX_NAME = 40
Parts = tuple[tuple[Path, int], ...]  # files, and the number of the first row of each


class Table(NamedTuple):
    """Some columns of a data file."""

    path: Path
    arrow: pa.Table
    rows: Tensor | None = None  # their numbers in the file, if some of its rows were left out
    parts: Parts = ()  # if it is several files

    def place(self, row: int, name: str) -> tuple[str, str]:
        """Say where a row stands, counted from 0, and what a column has there, as text."""
        number = row if self.rows is None else int(self.rows[row])
        part = bisect_right(self.parts, number, key=lambda part: part[1]) - 1
        path, first = self.parts[part] if self.parts else (self.path, 0)
        of_file = f" of {path}" if self.parts else ""
        if format_of(path.name) in (".csv", ".csv.gz"):
            line, text = csv_place(path, number - first, name)
            return line + of_file, text
        value = self.arrow.column(name)[row].as_py()
        return f"row {number - first}{of_file} (counted from 0)", "" if value is None else str(value)


def column_names(path: Path) -> list[str]:
    """Read the names of the columns of a data file, or of several, which have the same; those of folders are last.

    Raises:
        InputError: a file cannot be read, a name appears twice, or files have different columns: both are named.
    """
    first, *others = list_files(path)
    names = _names_of(first)
    for other in others:
        check_same_names(first, names, other, _names_of(other))
    return [*names, *find_partitions(path).types]


def _names_of(path: Path) -> list[str]:
    with _readable(path) as form:
        names = form.names(path)
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path}: column `{twice[0][:MAX_NAME]}` appears more than once")
    return names


def read_table(path: Path, names: Sequence[str]) -> Table:
    """Read some columns of a data file, or of several, one after another.

    Raises:
        InputError: a file, a column or a line of it is invalid, or files differ.
    """
    check_columns(path, names)
    files, tables, partitions = list_files(path), list[Any](), find_partitions(path)
    for file in files:
        with _readable(file) as form:
            tables.append(partitions.complete(file, form.read(file, partitions.in_files(names)), names))
        check_size(path, sum(table.num_rows for table in tables), len(names))
    return Table(path, tables[0]) if len(files) == 1 else _joined(path, files, tables, names)


def _joined(path: Path, files: Sequence[Path], tables: list[Any], names: Sequence[str]) -> Table:
    import pyarrow as pa

    types = merge_types(files, [{field.name: field.type for field in table.schema} for table in tables])
    schema = pa.schema([(name, types[name]) for name in names])
    starts = itertools.accumulate((table.num_rows for table in tables[:-1]), initial=0)
    joined = pa.concat_tables([table.cast(schema, safe=False) for table in tables])
    return Table(path, joined, None, tuple(zip(files, starts, strict=True)))


def table_of(columns: Any, names: Sequence[str]) -> Table:
    """Take some columns of a table in memory, or of a dict of lists.

    Raises:
        InputError: it is no table, or a column is missing.

    >>> table_of({"x": [1, 2], "note": ["a", "b"]}, ["x"]).arrow.num_rows
    2
    """
    import pyarrow as pa

    path = Path("rows")  # the name in messages
    if isinstance(columns, Mapping):
        _check_lists(path, columns)
    try:
        arrow = pa.table(dict(columns)) if isinstance(columns, Mapping) else pa.table(columns)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: wanted a table or a dict of lists, got {columns!r:.60}: {str(error)[:200]}"
        ) from None
    missing = [name for name in names if name not in arrow.column_names]
    if missing:
        raise InputError(
            f"{path}: {_describe_missing(missing, arrow.column_names)}; {_show_columns(arrow.column_names)}"
        )
    return Table(path, arrow.select(list(names)))


def _check_lists(path: Path, columns: Mapping[str, Any]) -> None:
    for name, value in columns.items():
        if value is None or isinstance(value, str | bytes | Number | date | np.generic):
            raise InputError(
                f"{path}: column `{str(name)[:MAX_NAME]}`: "
                f"wanted a dict of lists, as in [{value!r:.40}], got {value!r:.40}"
            )


def check_columns(path: Path, names: Sequence[str]) -> None:
    """Check that a data file has some columns.

    Raises:
        InputError: it cannot be read, or a column is missing: the nearest names are shown.
    """
    present = column_names(path)
    missing = [name for name in names if name not in present]
    if missing:
        raise InputError(f"{path}: {_describe_missing(missing, present)}; {_show_columns(present)}")


@contextmanager
def _readable(path: Path) -> Iterator[Format]:
    try:
        yield FORMATS[format_of(path.name) or ""]
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{str(path)[:200]}: {reason.lower()}; wanted a data file") from None


class Choice(NamedTuple):
    """The columns that a fit uses."""

    inputs: tuple[str, ...]
    targets: tuple[str, ...]


def choose(path: Path, names: list[str], target: str | None, inputs: Sequence[str] | None) -> Choice:
    """Choose the target columns, `a` or `a,b`, and the inputs, by default all other columns.

    Raises:
        InputError: a column is missing, or is chosen twice.
    """
    if target is None:
        raise InputError(f"{path}: a data file needs --target COLUMN; {_show_columns(names)}")
    targets = (target,) if target in names else tuple(part.strip() for part in target.split(","))
    for name in targets:
        _check_present(path, names, name, "--target")
    _check_once(targets, "--target")
    if inputs is None:
        inputs = [name for name in names if name not in targets]
        if "" in inputs:
            number = names.index("") + 1
            raise InputError(f"{path}: column {number} has no name; name it, or choose columns with --inputs a,b")
    else:
        _check_inputs(path, names, targets, inputs)
    if not 1 <= len(inputs) <= MAX_COLUMNS:
        raise InputError(
            f"{path}: {len(inputs)} input columns; wanted 1 to {MAX_COLUMNS} besides the target; {_show_columns(names)}"
        )
    return Choice(tuple(inputs), targets)


def _check_inputs(path: Path, names: list[str], targets: Sequence[str], inputs: Sequence[str]) -> None:
    present = {*names} - {""}
    for name in inputs:
        if name not in present:
            _check_present(path, names, name, "--inputs")
        if name in targets:
            raise InputError(f"--inputs: `{name}` is the target; it cannot be an input too")
    _check_once(inputs, "--inputs")


def _check_once(names: Sequence[str], option: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{option}: `{twice[0]}` appears twice")


def _check_present(path: Path, names: list[str], name: str, option: str) -> None:
    if name in names and name:
        return
    close = difflib.get_close_matches(name[:MAX_NAME], names[:MAX_COLUMNS], n=1)
    guess = f" (did you mean `{close[0]}`?)" if close else ""
    hint = _csv_hint(names) if format_of(list_files(path)[0].name) in (".csv", ".csv.gz") else ""
    raise InputError(f"{option}: {path} has no column `{name[:MAX_NAME]}`{guess}; {_show_columns(names)}{hint}")


def _describe_missing(missing: Sequence[str], names: Sequence[str]) -> str:
    parts = []
    for name in missing[:5]:
        close = difflib.get_close_matches(name[:MAX_NAME], names[:MAX_COLUMNS], n=1)
        parts.append(f"`{name[:MAX_NAME]}`" + (f" (did you mean `{close[0][:MAX_NAME]}`?)" if close else ""))
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"the model needs column{'s' * (len(missing) > 1)} {', '.join(parts)}{more}"


def _csv_hint(names: list[str]) -> str:
    if len(names) == 1:
        return " - are its columns separated by something other than commas?"
    if all(re.fullmatch(r"[-+.\deE]+", name) for name in names):
        return " - the first line must be a header with the names of the columns"
    return ""


def _show_columns(names: list[str]) -> str:
    shown = ", ".join(name[:MAX_NAME] for name in names[:30])
    return f"it has: {shown}{', ...' if len(names) > 30 else ''}"

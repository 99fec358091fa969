"""Columns that folders stand for: `year=2024/part.parquet` has the column `year` with the value 2024 in each row.

This is the layout that Hive and Spark write, and that pyarrow.dataset calls hive partitioning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from torchpure.errors import InputError

from ._files import COLUMNAR, folders_below, list_files
from ._formats import FORMATS, format_of

if TYPE_CHECKING:
    import pyarrow as pa

_MISSING = "__HIVE_DEFAULT_PARTITION__"  # what Hive writes for a value that is missing
Texts = dict[str, str | None]


class Partitions(NamedTuple):
    """The columns that the folders of files stand for, besides those in the files."""

    types: Mapping[str, pa.DataType]  # by the name of the column, in the order of the folders
    values: Mapping[Path, Mapping[str, pa.Scalar]]  # of each file

    def in_files(self, names: Sequence[str]) -> list[str]:
        """Return the columns that are read from the files themselves."""
        return [name for name in names if name not in self.types]

    def complete(self, file: Path, part: Any, names: Sequence[str]) -> Any:
        """Return a table or batch of these columns: those of the file, and those of its folders.

        Raises:
            InputError: the file was not there when the folders were listed.
        """
        import pyarrow as pa

        if not self.types:
            return part
        values = self.values.get(file)
        if values is None:
            raise InputError(f"{file}: is new; the folder changed while it was read")
        arrays = [pa.repeat(values[name], part.num_rows) if name in self.types else part.column(name) for name in names]
        return type(part).from_arrays(arrays, names=list(names))


def find_partitions(path: Path) -> Partitions:
    """Find the columns that the folders below a path stand for; a column that the files have too is read from them.

    Raises:
        InputError: there are no files, or the folders of two files have different names.
    """
    import pyarrow as pa

    files = list_files(path)
    texts = {file: _texts(folders_below(path, file)) for file in files}
    form = format_of(files[0].name) or ""
    if form not in COLUMNAR or not any(texts.values()):
        return Partitions({}, {})
    _check_same(texts)
    present = {*FORMATS[form].names(files[0])}
    types = {
        name: _type([values[name] for values in texts.values()]) for name in texts[files[0]] if name not in present
    }
    strings = {file: {name: pa.scalar(values[name], pa.string()) for name in types} for file, values in texts.items()}
    return Partitions(
        types,
        {file: {name: one.cast(types[name]) for name, one in values.items()} for file, values in strings.items()},
    )


def _texts(folders: Sequence[str]) -> Texts:
    pairs = [folder.split("=", 1) for folder in folders if folder.find("=") > 0]
    return {unquote(name): None if text == _MISSING else unquote(text) for name, text in pairs}


def _check_same(texts: Mapping[Path, Texts]) -> None:
    first, names = next(iter(texts.items()))
    for file, values in texts.items():
        differ = sorted({*values} ^ {*names})
        if differ:
            has, lacks = (file, first) if differ[0] in values else (first, file)
            raise InputError(f"{has} is in a folder {differ[0][:40]}=..., {lacks} is not; wanted the same columns")


def _type(texts: Sequence[str | None]) -> pa.DataType:
    """Return the type of values that are written as text: whole numbers, numbers, dates, or text."""
    import pyarrow as pa

    for kind in (pa.int64(), pa.float64(), pa.date32()):
        try:
            pa.array(texts, pa.string()).cast(kind)
        except pa.ArrowInvalid:
            continue
        return kind
    return pa.string()

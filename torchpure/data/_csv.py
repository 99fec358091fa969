"""Comma-separated text, plain or compressed by gzip: read by pyarrow, and by Python to find the line of a fault."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

from torchpure.errors import InputError

from ._native_file import native_file

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LINE = 2**22
BLOCK = 2**20  # bytes that one thread parses at a time; the first block is parsed alone, while the others wait
MAX_BYTES = 2**32  # of text
MAX_DICTIONARY = 1000  # different texts in a block, up to which a column has each text once
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")  # in a column of text only the empty field is missing
_BOOLEANS = {"true": 1.0, "false": 0.0}
_NUMBER = r"^\s*(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:[iI][nN][fF]|[nN][aA][nN])|(?i:true|false))\s*$"


def csv_names(path: Path) -> list[str]:
    """Read the names of the columns from the first line.

    Raises:
        InputError: the file is empty, or is no text.
    """
    return [name.strip() for name in _header(path)]


def read_csv(path: Path, names: list[str]) -> pa.Table:
    """Read some columns. Numbers, booleans and dates are recognised; other columns are text.

    Raises:
        InputError: the file is too large, or a line of it is wrong.
    """
    import pyarrow as pa

    raw = _raw_names(path)
    wanted = [raw[name] for name in names]
    try:
        table = _parse(path, wanted, newlines=False)
    except (
        pa.ArrowInvalid,
        pa.ArrowKeyError,
    ):  # a field may have line breaks, which is slower to read, or a line be longer than a block
        find_fault(path)
        try:
            table = _parse(path, wanted, newlines=True)
        except pa.ArrowException as error:
            raise InputError(f"{path}: not a csv file: {str(error).splitlines()[0][:200]}") from None
    columns = [_finished(path, name, column) for name, column in zip(names, table.columns, strict=True)]
    return pa.Table.from_arrays(columns, names=names)


def csv_blocks(path: Path, names: Sequence[str], types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file of any size in batches; a type that is not given is that of the first batch."""
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    raw = _raw_names(path)
    options = arrow_csv.ConvertOptions(
        include_columns=[raw[name] for name in names],
        column_types={raw[name]: kind for name, kind in types.items()},
        null_values=list(MISSING),
    )
    parse, read = arrow_csv.ParseOptions(newlines_in_values=True), arrow_csv.ReadOptions(block_size=MAX_LINE)
    with (
        _opened(path, limit=None) as file,
        arrow_csv.open_csv(file, read_options=read, parse_options=parse, convert_options=options) as batches,
    ):
        for batch in batches:
            columns = [_without_empty(column) for column in batch.columns]
            yield pa.RecordBatch.from_arrays(columns, names=list(names))


def _without_empty(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_string(column.type):
        return column
    pc: Any = compute  # its functions are made when it is imported
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), pa.scalar(None, pa.string()), column)


def _raw_names(path: Path) -> dict[str, str]:
    """Return the names of the columns as they stand in the file, by their names without spaces around them."""
    return {name.strip(): name for name in _header(path)}


def csv_place(path: Path, row: int, name: str) -> tuple[str, str]:
    """Return the line of a row, counted from 0, and the text of one of its fields."""
    with _csv_rows(path) as rows:
        lines = filter(None, rows)
        index = [field.strip() for field in next(lines)].index(name)
        for number, fields in enumerate(lines):
            if number == row:
                return f"line {rows.line_num}", fields[index]
    raise InputError(f"{path}: the file changed while it was read")


def describe_number(text: str) -> str:
    """Say what was wanted of a field that is no finite number, and what came.

    >>> describe_number("inf"), describe_number(" ")
    ("wanted a finite number, got 'inf'", 'wanted a number, got nothing')
    """
    try:
        what = "a number" if math.isfinite(float(text)) or "_" in text else "a finite number"
    except ValueError:
        what = "a number"
    return f"wanted {what}, got {repr(text[:40]) if text.strip() else 'nothing'}"


def _parse(path: Path, names: list[str], *, newlines: bool) -> pa.Table:
    import pyarrow.csv as arrow_csv

    with _opened(path, MAX_BYTES) as file:
        return arrow_csv.read_csv(
            file,
            read_options=arrow_csv.ReadOptions(block_size=MAX_LINE if newlines else BLOCK),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=newlines),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=names,
                null_values=list(MISSING),
                auto_dict_encode=True,
                auto_dict_max_cardinality=MAX_DICTIONARY,
            ),
        )


@contextmanager
def _opened(path: Path, limit: int | None) -> Iterator[Any]:
    if path.suffix.lower() != ".gz":
        if limit is not None and path.stat().st_size > limit:
            raise InputError(f"{path}: more than {limit} bytes of text; --batch-size reads it in parts")
        with native_file(path) as file:
            yield file
        return
    import pyarrow as pa

    with _unzipped(path, limit) as file:
        yield pa.PythonFile(file, mode="r")


class _Limited(io.RawIOBase):
    """A stream of text that must not grow beyond the limit: a small archive can hold any amount."""

    def __init__(self, path: Path, file: BinaryIO, limit: int | None) -> None:
        self._path, self._file, self._limit, self._read = path, file, limit, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size if size >= 0 else MAX_LINE)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{self._path}: not a readable gzip file: {error}") from None
        self._read += len(data)
        if self._limit is not None and self._read > self._limit:
            raise InputError(f"{self._path}: more than {self._limit} bytes of text; --batch-size reads it in parts")
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _unzipped(path: Path, limit: int | None) -> Iterator[_Limited]:
    with gzip.open(path, "rb") as file:
        yield _Limited(path, file, limit)  # pyrefly: ignore[bad-argument-type] a GzipFile is a stream of bytes


def _finished(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column of text that is numbers and booleans after all, as ` TRUE` and `1` are.

    Raises:
        InputError: most of its fields are numbers, but not all.
    """
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made when it is imported

    if pa.types.is_binary(column.type):
        find_fault(path)
        raise InputError(f"{path}: not UTF-8 text in column `{name}`")
    if not (pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)):
        return column
    encoded = column.dictionary_encode() if pa.types.is_string(column.type) else column
    encoded = encoded.unify_dictionaries().combine_chunks()
    texts = _read_texts(encoded.dictionary)
    if not texts.texts.null_count and not pc.any(texts.numeric).as_py():
        return pa.chunked_array([encoded])
    numeric = texts.numeric.take(encoded.indices)  # null where a text is missing
    matches, present = pc.sum(numeric).as_py() or 0, len(numeric) - numeric.null_count
    if matches < present:
        if 2 * matches >= present:
            _refuse_text(path, name, pc.index(numeric, False).as_py())
        return pa.chunked_array([pa.DictionaryArray.from_arrays(encoded.indices, texts.texts)])
    return pa.chunked_array([texts.numbers().take(encoded.indices)])


class _Texts(NamedTuple):
    """The different texts of a column."""

    texts: pa.Array  # null where there is nothing but spaces
    numeric: pa.Array  # which are numbers or booleans

    def numbers(self) -> pa.Array:
        """Convert all to numbers."""
        import pyarrow as pa
        from pyarrow import compute

        pc: Any = compute
        words = pc.utf8_lower(pc.utf8_trim_whitespace(self.texts))
        for word, value in _BOOLEANS.items():
            words = pc.replace_substring_regex(words, f"^{word}$", str(value))
        return pc.replace_substring_regex(words, r"^\+", "").cast(pa.float64())


def _read_texts(texts: pa.Array) -> _Texts:
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made when it is imported
    texts = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), pa.scalar(None, pa.string()), texts)
    return _Texts(texts, pc.match_substring_regex(texts, _NUMBER))


def _refuse_text(path: Path, name: str, row: int) -> NoReturn:
    place, text = csv_place(path, row, name)
    raise InputError(
        f"{path}: column `{name}`, {place}: {describe_number(text)}; --inputs a,b chooses the columns to use"
    )


def _header(path: Path) -> list[str]:
    with _csv_rows(path) as rows:
        header = next((row for row in rows if row), None)
    if header is None:
        raise InputError(f"{path}: the file is empty; wanted a header line and rows of data")
    return header


def find_fault(path: Path) -> None:
    """Read the file again in Python, which knows its lines.

    Raises:
        InputError: a line is too long, has another number of fields, or is no text.
    """
    header = _header(path)
    with _csv_rows(path) as rows:
        for row in filter(None, rows):
            if len(row) != len(header):
                raise InputError(f"{path}: line {rows.line_num} has {len(row)} fields; the header has {len(header)}")


@contextmanager
def _csv_rows(path: Path) -> Iterator[Any]:
    try:
        with _text(path) as file:
            yield csv.reader(_lines(path, file))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{path}: not UTF-8 text (it has the byte {byte:#x}); wanted a csv file in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a csv file: {error}") from None


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOBase]:
    if path.suffix.lower() != ".gz":
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
        return
    with _unzipped(path, None) as raw:
        yield io.TextIOWrapper(io.BufferedReader(raw), newline="", encoding="utf-8-sig")


def _lines(path: Path, file: io.TextIOBase) -> Iterator[str]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise InputError(f"{path}: a line has more than {MAX_LINE} characters; wanted a csv file")
        yield line

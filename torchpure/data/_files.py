"""Data in several files: a folder, or a pattern such as data/*.parquet, is one table if its files agree.

Names that begin with a point or an underscore are passed over, as in pyarrow.dataset.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchpure.errors import InputError

from ._formats import format_of
from ._kinds import common_type, kind_of_type, plain_type

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FILES = 10_000
COLUMNAR = (".parquet", ".feather", ".arrow")
MAX_ENTRIES = 1_000_000  # that are looked at to find them
KINDS = ".csv, .csv.gz, .parquet, .feather, .arrow or .npz"
_WORDS = {"number": "numbers", "boolean": "booleans", "time": "dates", "nothing": "nothing"}


def is_table(text: str) -> bool:
    """Return whether TARGET names data: a file by its suffix, a folder by its slash, or files by a pattern.

    >>> [is_table(text) for text in ("data/Prices.CSV", "data/", "data/*", "2*x")]
    [True, True, True, False]
    """
    return format_of(text) is not None or text.endswith(("/", os.sep, "/*", "/**"))


def list_files(path: Path) -> tuple[Path, ...]:
    """Return the files that a path names, sorted: itself, those in a folder and its folders, or those of a pattern.

    Raises:
        InputError: there is none, it cannot be read, or they have several formats.
    """
    try:
        if _has_pattern(path) and not os.path.lexists(path):
            found = glob.iglob(str(path), recursive=True)  # noqa: PTH207 a Path cannot take an absolute pattern
            return _checked(path, [Path(name) for name in found])
        return _in_folder(path) if path.is_dir() else (_regular(path),)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # a name with null bytes is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{str(path)[:200]}: {reason.lower()}; wanted a data file, or a folder of such files"
        ) from None


def is_data(path: Path) -> bool:
    """Return whether a path names data files that exist and agree in their format."""
    try:
        return bool(list_files(path))
    except InputError:
        return False


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of several."""
    hashes = []
    for one in list_files(path):
        with one.open("rb") as file:
            hashes.append((os.path.relpath(one, _base(path)), hashlib.file_digest(file, "sha256").hexdigest()))
    if [name for name, _ in hashes] == ["."]:
        return hashes[0][1]
    return hashlib.sha256("".join(f"{name}\0{value}\n" for name, value in hashes).encode()).hexdigest()


def check_same_names(first: Path, names: Sequence[str], other: Path, others: Sequence[str]) -> None:
    """Check that two files have the same columns, in any order.

    Raises:
        InputError: they differ; both files and the columns are named.
    """
    for has, lacks, present, absent in ((first, other, names, others), (other, first, others, names)):
        only = [name for name in present if name not in {*absent}]
        if only:
            shown = ", ".join(f"`{name[:40]}`" for name in only[:5])
            raise InputError(
                f"{has} has column{'s' * (len(only) > 1)} {shown}, {lacks} has not; wanted the same columns"
            )


def merge_types(files: Sequence[Path], types: Sequence[Mapping[str, pa.DataType]]) -> dict[str, pa.DataType]:
    """Return the type of each column that holds the values of all files.

    Raises:
        InputError: a column holds numbers in one file and text in another, or the like; both files are named.
    """
    merged, seen = dict(types[0]), dict.fromkeys(types[0], files[0])
    for file, found in zip(files[1:], types[1:], strict=True):
        for name, kind in found.items():
            common = common_type(merged[name], kind)
            if common is None:
                raise InputError(
                    f"column `{name[:40]}` holds {_word(merged[name])} in {seen[name]}, and {_word(kind)} in {file}; "
                    "wanted the same in all files"
                )
            if kind_of_type(merged[name]) == "nothing":
                seen[name] = file
            merged[name] = common
    return merged


def _word(kind: pa.DataType) -> str:
    plain = plain_type(kind)
    return _WORDS.get(kind_of_type(plain) or "", str(plain)) if kind_of_type(plain) != "text" else "text"


def _base(path: Path) -> Path:
    """Return the folder to which the names of files are relative; for one file, the file."""
    parts = path.parts
    first = next((place for place, part in enumerate(parts) if re.search(r"[*?[]", part)), None)
    return path if first is None or os.path.lexists(path) else Path(*parts[:first])


def folders_below(path: Path, file: Path) -> tuple[str, ...]:
    """Return the names of the folders between a path and one of its files."""
    return file.relative_to(_base(path)).parts[:-1]


def _has_pattern(path: Path) -> bool:
    return any(character in str(path) for character in "*?[")


def _in_folder(path: Path) -> tuple[Path, ...]:
    files = _checked(path, _walk(path))
    if format_of(files[0].name) not in COLUMNAR:
        for file in files:
            if any("=" in name for name in folders_below(path, file)):
                raise InputError(
                    f"{file.parent}: a folder that stands for the value of a column is read for Parquet and Arrow "
                    f"files alone; wanted {format_of(file.name)} files that have all columns"
                )
    return files


def _walk(folder: Path) -> list[Path]:
    found, seen = list[Path](), 0
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if name[:1] not in "._")
        found += [Path(place) / name for name in names if name[:1] not in "._"]
        seen += len(names) + len(folders)
        if seen > MAX_ENTRIES:
            raise InputError(f"{folder}: more than {MAX_ENTRIES} files and folders; a pattern chooses some")
    return found


def _raise(error: OSError) -> None:
    raise error


def _checked(path: Path, found: Sequence[Path]) -> tuple[Path, ...]:
    files = sorted(one for one in found if one.name[:1] not in "._" and not one.is_dir())
    if not files:
        raise InputError(f"{path}: no files; wanted a data file, or a folder of such files: {KINDS}")
    if len(files) > MAX_FILES:
        raise InputError(f"{path}: {len(files)} files; at most {MAX_FILES} are read")
    first = format_of(files[0].name)
    for file in files:
        suffix = format_of(_regular(file).name)
        if suffix == ".npz" and len(files) > 1:
            raise InputError(f"{file}: .npz files are read one by one; wanted a folder of Parquet, Arrow or CSV files")
        if suffix != first:
            raise InputError(
                f"{path}: {files[0]} and {file} have different formats; a pattern such as *{first} chooses"
            )
    return tuple(files)


def _regular(path: Path) -> Path:
    """Check that a path is a regular file of a known format, and return it."""
    if format_of(path.name) is None and (path.suffix or path.exists()):
        raise InputError(f"{str(path)[:200]!r}: wanted a data file: {KINDS}")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is a {'pipe' if stat.S_ISFIFO(mode) else 'device or socket'}; wanted a data file")
    return path

"""Arrays of an `.npz` archive, whose headers are checked before any data are read, so that memory is bounded."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torchpure.errors import InputError

MAX_MEMBERS = 10_000
MAX_COLUMNS_OF_ARRAY = 1000
MAX_BYTES = 2**30  # of one array


class Member(NamedTuple):
    """A member of an archive; `problem` says why it is no array of numbers."""

    file: str
    shape: tuple[int, ...]
    problem: str | None

    def columns(self, key: str) -> list[str]:
        """Name the columns of the array; one that cannot be read keeps the name of its array."""
        if self.problem or len(self.shape) == 1:
            return [key]
        return [f"{key}_{index}" for index in range(self.shape[1])]


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive.

    Raises:
        InputError: it is no archive, or is damaged.
    """
    try:
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise InputError(f"{path}: one array, not an .npz archive; wanted what numpy.savez writes")
            with zipfile.ZipFile(file) as opened:
                yield opened
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile, its codecs and numpy raise errors of many kinds for damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a readable .npz archive of numbers: {reason}") from None


def members(path: Path, opened: zipfile.ZipFile) -> list[tuple[str, Member]]:
    """List the arrays by name, from their headers.

    Raises:
        InputError: there are too many.
    """
    infos = opened.infolist()
    if len(infos) > MAX_MEMBERS:
        raise InputError(f"{path}: the archive has {len(infos)} members; at most {MAX_MEMBERS} are allowed")
    return [(info.filename.removesuffix(".npy"), _member(opened, info)) for info in infos]


def read(path: Path, opened: zipfile.ZipFile, key: str, member: Member) -> dict[str, Any]:
    """Read an array, and return its columns by name.

    Raises:
        InputError: it is no array of numbers, or is too large or damaged.
    """
    import numpy as np

    if member.problem:
        problem = f"array `{key}` {member.problem}"
        raise InputError(f"{path}: not a readable .npz archive of numbers: {problem}; --inputs a,b chooses columns")
    try:
        with opened.open(member.file) as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):  # reads to the end, where zipfile compares the checksum
                raise ValueError("it is longer than its header says")
    except Exception as error:  # see `archive`
        raise InputError(f"{path}: not a readable .npz archive of numbers: array `{key}`: {error}") from None
    names = member.columns(key)
    return dict(zip(names, [values] if values.ndim == 1 else values.T, strict=True))


def _member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    import numpy as np

    try:
        with opened.open(info) as file:
            major, _ = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(file)
            start = file.tell()
    except Exception as error:  # see `archive`
        return Member(info.filename, (), f"is no array: {str(error) or type(error).__name__}")
    return Member(info.filename, shape, _problem(shape, dtype, info.file_size - start))


def _problem(shape: tuple[int, ...], dtype: Any, size: int) -> str | None:
    if dtype.hasobject:
        return "holds Python objects; wanted numbers"
    if len(shape) not in (1, 2) or min(shape) < 0 or (len(shape) == 2 and shape[1] > MAX_COLUMNS_OF_ARRAY):
        return f"has shape {shape}; wanted (rows,) or (rows, columns up to {MAX_COLUMNS_OF_ARRAY})"
    needed = math.prod(shape) * dtype.itemsize
    if needed > MAX_BYTES:
        return f"has shape {shape} and needs {needed} bytes; at most {MAX_BYTES} are allowed"
    if needed != size:
        return f"has shape {shape} and needs {needed} bytes, but the archive has {size}"
    return None

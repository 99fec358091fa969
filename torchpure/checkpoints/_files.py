"""Writing and reading of whole files and folders: complete on the disk, or an error of this library."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchpure.errors import CheckpointError, InputError, MeshError

from ._locks import opened_folder

CHUNK = 1 << 20  # bytes: a chunk stays in the cache between the disk and the hash
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# O_NONBLOCK: the open of a FIFO would wait for a writer
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)


@contextmanager
def reported(caller: str, path: Path) -> Iterator[None]:
    """Turn an error of the system, or of a damaged file, into one of this library that names the path."""
    try:
        yield
    except (CheckpointError, MeshError):
        raise
    except OSError as error:
        raise CheckpointError(f"{caller}: {path}: {_reason(error, path)}") from error
    except (ValueError, MemoryError, RuntimeError) as error:  # torch's allocators raise the last
        raise CheckpointError(f"{caller}: {path}: {str(error) or 'it needs more memory than there is'}") from error


def _reason(error: OSError, path: Path) -> str:
    place = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
    return f"{(error.strerror or str(error)).lower()}{place}"


def checked_path(path: Any, caller: str) -> Path:
    """Return the path that a user gives.

    Raises:
        TypeError: it is no string or path.
        InputError: it is empty, which would be the working folder.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"{caller}: path: wanted a str or a pathlib.Path, got {path!r:.60}")
    if not text:
        raise InputError(f"{caller}: path: wanted the path of a folder, got an empty string")
    return Path(text)


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Open a file that does not exist yet; write it to the disk at the end."""
    descriptor = os.open(path, _NEW | _BINARY, 0o666)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all bytes; a call of the system may write fewer."""
    rest = memoryview(data)
    while rest:
        count = os.write(descriptor, rest)
        if count <= 0:
            raise OSError("the system wrote nothing")
        rest = rest[count:]


def sync_folder(folder: Path) -> None:
    """Write the entries of a folder to the disk."""
    with opened_folder(folder) as descriptor:
        if descriptor is not None:
            os.fsync(descriptor)


@contextmanager
def existing_file(path: Path) -> Iterator[tuple[int, int]]:
    """Open a regular file, and nothing that a link leads to; yield the descriptor and the size.

    Raises:
        ValueError: it is no regular file.
    """
    descriptor = os.open(path, _READ | _BINARY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path.name} is no regular file")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def read_exactly(descriptor: int, count: int, what: str) -> bytes:
    """Read this many bytes; `count` is checked before.

    Raises:
        ValueError: the file ends before.
    """
    buffer = bytearray(count)
    read_into(descriptor, memoryview(buffer), what)
    return bytes(buffer)


def read_into(descriptor: int, buffer: memoryview, what: str) -> None:
    """Fill a buffer from a file.

    Raises:
        ValueError: the file ends before.
    """
    while buffer:
        count = os.readv(descriptor, [buffer]) if hasattr(os, "readv") else _read_copy(descriptor, buffer)
        if count <= 0:
            raise ValueError(f"{what} is shorter than it was")
        buffer = buffer[count:]


def _read_copy(descriptor: int, buffer: memoryview) -> int:
    data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)

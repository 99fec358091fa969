"""Open the files of a folder: regular files only, of a bounded size, and never through a link."""

import difflib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from torchpure.errors import InputError

MAX_NAMES = 10_000
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_folder(path: Path, wanted: str = "a run's folder") -> Path:
    """Check that a path is a folder, and return it.

    Raises:
        InputError: it is missing, with the nearest name that exists, or it is no folder.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: not found{_guess(path)}; wanted {wanted}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)[:200]!r}: {reason(error)}; wanted {wanted}") from None
    if not stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a {kind(mode)}; wanted {wanted}")
    return path


@contextmanager
def open_file(folder: Path, name: str, max_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file of a folder, and yield it with its size in bytes.

    Raises:
        InputError: it is missing, too large, or no regular file.
    """
    path = folder / name
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; wanted a file that `torchpure fit` writes") from None
    except OSError as error:
        what = "is a link; links are not followed" if path.is_symlink() else reason(error)
        raise InputError(f"{path}: {what}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is a {kind(status.st_mode)}; wanted a regular file")
        if status.st_size > max_bytes:
            raise InputError(f"{path}: has {status.st_size} bytes; at most {max_bytes} are expected")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file, status.st_size
    finally:
        os.close(descriptor)


def read_bytes(folder: Path, name: str, max_bytes: int) -> bytes:
    """Read a whole file of a folder.

    Raises:
        InputError: see `open_file`; or the file grew meanwhile.
    """
    with open_file(folder, name, max_bytes) as (file, _):
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(f"{folder / name}: has more than {max_bytes} bytes")
    return content


def kind(mode: int) -> str:
    """Name the kind of a file."""
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    return "pipe" if stat.S_ISFIFO(mode) else "device or socket"


def reason(error: Exception) -> str:
    """Say in lower case why the system refused."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _guess(path: Path) -> str:
    """Suggest the nearest name beside a missing path, or the run of that name in `runs/`."""
    for parent in (path.parent, Path("runs")):
        try:
            with os.scandir(parent) as entries:
                names = [entry.name for entry, _ in zip(entries, range(MAX_NAMES), strict=False)]
        except (OSError, ValueError):
            continue
        close = difflib.get_close_matches(path.name[:80], [name for name in names if name[:1] != "."], n=1)
        if close:
            return f" (did you mean `{parent / close[0]}`?)"
    return ""

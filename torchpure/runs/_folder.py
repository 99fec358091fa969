"""A run's folder: written under a temporary name and then renamed, so that nobody sees a half-written run."""

import itertools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from torchpure.errors import InputError

from ._stale import locked, remove_stale

RUNS = Path("runs")
MAX_NAME = 40


class Draft(NamedTuple):
    """A folder that is being written."""

    path: Path
    publish: Callable[[], Path]  # renames the folder, and returns its new path


def slug(text: str) -> str:
    """Convert a target to a short text that is safe in a file name.

    >>> slug("2*sin(x + 2*pi)")
    '2-sin-x-2-pi'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_NAME].strip("-") or "run"


@contextmanager
def draft(out: Path | None, name: str) -> Iterator[Draft]:
    """Make a temporary folder beside `out`, or in `runs/`; remove it at the end if it was not published.

    Raises:
        InputError: `out` exists, or its parent folder is not writable.
    """
    parent = RUNS if out is None else out.parent
    created = out is None and _make_runs_folder()
    remove_stale(parent)
    temporary = parent / f".{out.name if out else name}-{secrets.token_hex(4)}.partial"
    try:
        _make_temporary(temporary, out)
        with locked(temporary):
            yield Draft(temporary, lambda: _publish(temporary, out, name))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if created:
            with suppress(OSError):  # not empty: it holds a run
                RUNS.rmdir()


def _make_runs_folder() -> bool:
    try:
        RUNS.mkdir()
    except FileExistsError:
        if not RUNS.is_dir():
            raise InputError(f"{RUNS}: not a folder; runs are saved there, or in --out DIR") from None
        return False
    except OSError as error:
        raise InputError(
            f"{RUNS}: cannot be made here ({_reason(error)}); choose another place with --out DIR"
        ) from None
    return True


def _make_temporary(temporary: Path, out: Path | None) -> None:
    if out is not None and (os.path.lexists(out) or not out.name):
        raise InputError(f"--out: {str(out)!r} exists already; wanted the name of a new folder")
    try:
        temporary.mkdir()
    except FileNotFoundError:
        raise InputError(f"--out: the folder {str(temporary.parent)!r} does not exist; make it first") from None
    except OSError as error:
        place = str(temporary.parent)
        raise InputError(
            f"--out: cannot write in {place!r} ({_reason(error)}); wanted a place for a new folder"
        ) from None


def _publish(temporary: Path, out: Path | None, name: str) -> Path:
    if out is not None:
        if not _claim(temporary, out):
            raise InputError(f"--out: {str(out)!r} was made by someone else meanwhile; this run is not saved")
        return out
    for number in itertools.count(1):
        path = RUNS / (name if number == 1 else f"{name}-{number}")
        if _claim(temporary, path):
            return path
    raise AssertionError("unreachable")


def _claim(temporary: Path, path: Path) -> bool:
    """Claim a free name: only one process can `mkdir` it, and a rename may replace an empty folder."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    try:
        temporary.replace(path)
    except BaseException:
        path.rmdir()
        raise
    return True


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

"""The folder of a run: it gets its name before the training, so that a run that was killed can be found and resumed."""

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torchpure.checkpoints import Checkpointer
from torchpure.errors import CheckpointError, InputError

RUNS = Path("runs")
MAX_NAME = 40


def slug(text: str) -> str:
    """Convert a target to a short text that is safe in a file name.

    >>> slug("2*sin(x + 2*pi)")
    '2-sin-x-2-pi'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_NAME].strip("-") or "run"


@contextmanager
def new_folder(out: Path | None, name: str, worth_keeping: Callable[[Path], bool]) -> Iterator[Path]:
    """Make the folder `out`, or one in `runs/`; if the block raises, remove it unless it is worth keeping.

    Raises:
        InputError: `out` exists, or its parent folder is not writable.
    """
    created = out is None and _make_runs_folder()
    folder = None
    try:
        folder = _make_numbered(name) if out is None else _make(out)
        yield folder
    except BaseException:
        if folder is not None and not worth_keeping(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if created:
            with suppress(OSError):  # not empty: it holds a run
                RUNS.rmdir()
        raise


def open_checkpoints(folder: Path, place: str, *, keep: int, every: int) -> Checkpointer:
    """Open the checkpoints of a run or a sweep, at `place` in its folder.

    Raises:
        CheckpointError: the run goes on in another process, or the place cannot be written.
    """
    try:
        return Checkpointer(folder / place, keep=keep, every=every)
    except CheckpointError as error:
        if error.writer is None:
            raise
        raise CheckpointError(
            f"{folder}: this run goes on in process {error.writer}; wait for its end, or stop that process first"
        ) from None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under another name, and rename it when it is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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


def _make(out: Path) -> Path:
    if os.path.lexists(out) or not out.name:
        raise InputError(f"--out: {str(out)!r} exists already; wanted the name of a new folder")
    try:
        out.mkdir()
    except FileExistsError:
        raise InputError(f"--out: {str(out)!r} was made by someone else meanwhile; wanted a new folder") from None
    except FileNotFoundError:
        raise InputError(f"--out: the folder {str(out.parent)!r} does not exist; make it first") from None
    except OSError as error:
        place = str(out.parent)
        raise InputError(
            f"--out: cannot write in {place!r} ({_reason(error)}); wanted a place for a new folder"
        ) from None
    return out


def _make_numbered(name: str) -> Path:
    """Make the first folder of this name that is free: only one process can make it."""
    for number in itertools.count(1):
        path = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"{RUNS}: cannot write there ({_reason(error)}); choose a place with --out DIR") from None
        return path
    raise AssertionError("unreachable")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

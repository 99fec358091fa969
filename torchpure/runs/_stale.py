"""Temporary folders of runs that were killed: found by their locks, which end with their process, and removed."""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILES = frozenset({"config.json", "metrics.jsonl", "params.safetensors", "loss.png", "fit.png"})
MIN_AGE = 60.0  # seconds: a new folder has no lock for a moment
_NAME = re.compile(r"\..*-[0-9a-f]{8}\.partial")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder until the block or the process ends; where folders have no locks, do nothing."""
    with _opened(folder) as descriptor:
        if descriptor is not None:
            _try_lock(descriptor)
        yield


def remove_stale(parent: Path) -> None:
    """Remove the temporary folders in `parent` that no process has locked and that hold nothing but files of runs."""
    with suppress(OSError):
        for folder in [path for path in parent.iterdir() if _NAME.fullmatch(path.name)]:
            _remove_if_stale(folder)


def _remove_if_stale(folder: Path) -> None:
    with suppress(OSError), _opened(folder) as descriptor:
        if descriptor is not None and _is_abandoned(folder) and _try_lock(descriptor):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    names = [path.name for path in folder.iterdir()]
    only_ours = all(name in FILES or name.startswith(".tmp") for name in names)  # safetensors writes `.tmp` files
    return only_ours and time.time() - folder.stat().st_mtime > MIN_AGE


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    if sys.platform == "win32":
        yield None  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system has no locks
        return False
    return True

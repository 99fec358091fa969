"""The folder of compiled programs: private to the user, or one that lasts as long as the process.

Programs of a folder are loaded into the process. So nobody else may be able to write to it, nor to put another folder
in its place: each folder and link on the way must belong to the user or to root.
"""

import atexit
import os
import shutil
import stat
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

FOLDER_VARIABLE = "TORCHPURE_CACHE"


def cache_folder() -> Path:
    """Return the cache folder of this user; a temporary folder of the process if that cannot be used."""
    try:
        folder = _chosen_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        why = _why_unsafe(folder)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return process_folder()
    if why:
        _warn(f"jit: programs are not kept in {folder}: {why}. Set {FOLDER_VARIABLE} to a private folder")
        return process_folder()
    return folder if writable else process_folder()


def process_folder() -> Path:
    """Return a temporary folder of the process.

    Raises:
        OSError: there is no place for temporary files.
    """
    return _temporary_folder(os.getpid())


@lru_cache(maxsize=1)
def _temporary_folder(process: int) -> Path:
    made = Path(tempfile.mkdtemp(prefix="torchpure-"))
    atexit.register(_remove, made, process)
    return made


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked process runs what its parent has registered
        shutil.rmtree(folder, ignore_errors=True)


def _chosen_folder() -> Path:
    chosen, base = os.environ.get(FOLDER_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    folder = Path(chosen) if chosen else Path(base or "~/.cache") / "torchpure"
    return Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 resolve() would follow links, which are checked too


def _why_unsafe(folder: Path) -> str:
    """Say who else could change the files of a folder, or put another one in its place; "" if nobody."""
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "other users may write to it: make it private (chmod 700)"
    for place in {*folder.parents, folder, *folder.resolve().parents}:
        found = place.lstat()
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in {0, os.getuid()} or (shared and not stat.S_ISLNK(found.st_mode)):
            return f"other users may change {place}"
    return ""


@lru_cache(maxsize=16)
def _warn(what: str) -> None:
    warnings.warn(what, stacklevel=2)

"""Locks of folders and files, which end with their process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torchpure.errors import CheckpointError

LOCK = ".lock"


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder, unless another process has it; always true where there are no locks."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return True
    return True


@contextmanager
def opened_folder(folder: Path) -> Iterator[int | None]:
    """Open a folder, to lock it or to write its entries to the disk; None where folders cannot be opened."""
    if sys.platform == "win32":
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def lock_writer(folder: Path) -> int:
    """Become the only writer of a folder until the descriptor is closed.

    Raises:
        CheckpointError: another writer has the folder; the message names its process.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(folder / LOCK, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not try_lock(descriptor):
        writer = ""
        with suppress(OSError):
            writer = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        error = CheckpointError(
            f"Checkpointer: {folder}: process {writer or '?'} writes there already; a folder has one writer. "
            "To read, use tp.restore of the folder"
        )
        error.writer = writer or "?"
        raise error
    with suppress(OSError):  # the number only serves messages, and the disk may be full
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
    return descriptor


class WriterLock:
    """The lock of a folder, taken when its owner first writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Become the only writer; return False if this is the writer already.

        Raises:
            CheckpointError: another writer has the folder.
        """
        if self._descriptor is not None:
            return False
        self._descriptor = lock_writer(self._folder)
        return True

    def release(self) -> None:
        """Let another writer have the folder."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

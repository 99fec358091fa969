"""Writing of a checkpoint: into a temporary folder beside it, which is renamed when everything is on the disk."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch

from torchpure.errors import CheckpointError

from ._files import new_file, reported, sync_folder, write_all
from ._locks import opened_folder, try_lock
from ._manifest import MANIFEST, MAX_BYTES, FileRecord, Manifest, TensorRecord, write_manifest
from ._migrations import SCHEMA
from ._plan import Plan
from ._tensor_file import header_bytes, write_tensors

R = TypeVar("R")
_MAX_THREADS = 4


def temporary_path(path: Path) -> Path:
    """Return a new name beside a path, of a folder that is being written or removed."""
    return path.with_name(f".{path.name[:100]}-{secrets.token_hex(4)}.partial")


def write_checkpoint(path: Path, plan: Plan, extra: dict[str, Any], caller: str) -> None:
    """Write a checkpoint; it is there when this returns, and wholly absent after an error.

    Raises:
        CheckpointError: it cannot be written, or `path` exists.
    """
    with reported(caller, path):
        if not path.name or os.path.lexists(path):
            raise CheckpointError(f"{caller}: {path} exists already; wanted the name of a new folder")
        temporary = temporary_path(path)
        temporary.mkdir()
        try:
            with opened_folder(temporary) as descriptor:
                if descriptor is not None:
                    try_lock(descriptor)  # so that nobody takes it for the folder of a dead process
                _write_into(temporary, plan, extra)
                os.rename(temporary, path)  # noqa: PTH104 Path.rename would replace nothing more
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_into(folder: Path, plan: Plan, extra: dict[str, Any]) -> None:
    records = by_file(plan.leaves, len(plan.tensors))
    if any(len(header_bytes(group)) > MAX_BYTES for group in records):
        raise ValueError(f"the names of its tensors need more than {MAX_BYTES} bytes in one file")

    def write(number: int) -> FileRecord:
        return write_tensors(folder / f"arrays-{number:05d}.safetensors", records[number], plan.tensors[number])

    files = tuple(side_by_side(write, range(len(records))))
    data = write_manifest(Manifest(_versions(), extra, files, plan.tree, plan.leaves), SCHEMA)
    if len(data) > MAX_BYTES:
        raise ValueError(f"its manifest would have {len(data)} bytes; at most {MAX_BYTES} are read")
    with new_file(folder / MANIFEST) as descriptor:
        write_all(descriptor, data)
    sync_folder(folder)


def by_file(leaves: Iterable[Any], num_files: int) -> list[list[TensorRecord]]:
    """Group the records of tensors by their file."""
    groups: list[list[TensorRecord]] = [[] for _ in range(num_files)]
    for leaf in leaves:
        if isinstance(leaf, TensorRecord):
            groups[leaf.file].append(leaf)
    return groups


def side_by_side(work: Callable[[int], R], numbers: Iterable[int]) -> list[R]:
    """Do the work of each number, in several threads: hashing and the system release Python's lock."""
    todo = list(numbers)
    threads = min(len(todo), os.cpu_count() or 1, _MAX_THREADS)
    if threads < 2:
        return [work(number) for number in todo]
    with ThreadPoolExecutor(threads) as pool:
        results = [_start(pool, work, number) for number in todo]
        try:
            return [result() for result in results]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start(pool: ThreadPoolExecutor, work: Callable[[int], R], number: int) -> Callable[[], R]:
    """Start the work of a number and return a function that waits for its result."""
    try:
        return pool.submit(work, number).result
    except RuntimeError:  # the interpreter ends, and a background write finishes: no new threads start then
        return lambda: work(number)


def _versions() -> dict[str, str]:
    try:
        ours = metadata.version("torchpure")
    except metadata.PackageNotFoundError:  # the sources are on the path, but not installed
        ours = "unknown"
    return {"torchpure": ours, "torch": str(torch.__version__)}

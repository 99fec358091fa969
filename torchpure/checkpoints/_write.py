"""Writing of a checkpoint: into a temporary folder beside it, which is renamed when everything is on the disk."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from torchpure.errors import CheckpointError

if TYPE_CHECKING:
    from torchpure.parallel.messages import Group

from ._files import new_file, reported, sync_folder, write_all
from ._locks import opened_folder, try_lock
from ._manifest import (
    MANIFEST,
    MAX_BYTES,
    FileRecord,
    Leaf,
    Manifest,
    ShardedRecord,
    TensorRecord,
    write_manifest,
)
from ._migrations import OF_WHOLE_TENSORS, SCHEMA
from ._plan import Plan
from ._tensor_file import header_bytes, write_tensors
from .sharded import Box, check_same, gather, whole

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
        with _new_folder(path, caller) as temporary:
            files = _write_files(temporary, plan, range(len(plan.tensors)))
            _write_manifest(temporary, plan, extra, files)
            os.rename(temporary, path)  # noqa: PTH104 Path.rename would replace nothing more
        sync_folder(path.parent)


@contextmanager
def _new_folder(path: Path, caller: str) -> Iterator[Path]:
    """Make the temporary folder of a new checkpoint; what is left of it is removed at the end."""
    if not path.name or os.path.lexists(path):
        raise CheckpointError(f"{caller}: {path} exists already; wanted the name of a new folder")
    temporary = temporary_path(path)
    temporary.mkdir()
    try:
        with opened_folder(temporary) as descriptor:
            if descriptor is not None:
                try_lock(descriptor)  # so that nobody takes it for the folder of a dead process
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_together(
    path: Path, plan: Plan, extra: dict[str, Any], caller: str, group: "Group", commit: Callable[[], None]
) -> None:
    """Write a checkpoint on all processes of a group: each its own files, process 0 the manifest when all have written.

    `commit` is called by process 0 after the checkpoint is there, and before the other processes return.

    Raises:
        CheckpointError: this process cannot write, or `path` exists.
        MeshError: another process cannot, has ended, did not come in time, or saves another tree.
    """
    text = f"{caller} of {path.name}"
    check_same(group, text, [leaf.path for leaf in plan.leaves], plan.summaries)
    with reported(caller, path), ExitStack() as stack:
        name = stack.enter_context(_new_folder(path, caller)).name if group.rank == 0 else ""
        folder = path.with_name(gather(group, text, name.encode())[0].decode())
        if not folder.is_dir():
            raise CheckpointError(
                f"{caller}: rank {group.rank} does not see {folder}, which rank 0 has made: save in a folder that all "
                "processes share"
            )
        numbers = [number for number, owner in enumerate(plan.owners) if owner == group.rank]
        own = [record._asdict() for record in _write_files(folder, plan, numbers)]
        sync_folder(folder)
        rows = gather(group, f"files of {text}", json.dumps(own).encode())
        if group.rank == 0:
            files = tuple([FileRecord(**fields) for row in rows for fields in json.loads(row)])
            _write_manifest(folder, plan, extra, files)
            os.rename(folder, path)  # noqa: PTH104 as above
            sync_folder(path.parent)
            commit()
        gather(group, f"end of {text}", b"")


def _write_files(folder: Path, plan: Plan, numbers: Sequence[int]) -> tuple[FileRecord, ...]:
    records = by_file(plan.leaves, len(plan.tensors))
    if any(len(header_bytes(group)) > MAX_BYTES for group in records):
        raise ValueError(f"the names of its tensors need more than {MAX_BYTES} bytes in one file")

    def write(number: int) -> FileRecord:
        return write_tensors(folder / f"arrays-{number:05d}.safetensors", records[number], plan.tensors[number])

    return tuple(side_by_side(write, numbers))


def _write_manifest(folder: Path, plan: Plan, extra: dict[str, Any], files: tuple[FileRecord, ...]) -> None:
    schema = SCHEMA if plan.owners else OF_WHOLE_TENSORS
    data = write_manifest(Manifest(_versions(), extra, files, plan.tree, plan.leaves), schema)
    if len(data) > MAX_BYTES:
        raise ValueError(f"its manifest would have {len(data)} bytes; at most {MAX_BYTES} are read")
    with new_file(folder / MANIFEST) as descriptor:
        write_all(descriptor, data)
    sync_folder(folder)


def pieces(leaf: Leaf) -> list[tuple[Box, TensorRecord]]:
    """Return the tensors of the files that a leaf consists of, with their places in it."""
    if isinstance(leaf, TensorRecord):
        return [(whole(leaf.shape), leaf)]
    if not isinstance(leaf, ShardedRecord):
        return []
    return [
        (Box(one.offset, one.shape), TensorRecord(leaf.path, one.file, one.name, leaf.dtype, one.shape))
        for one in leaf.shards
    ]


def by_file(leaves: Iterable[Leaf], num_files: int) -> list[list[TensorRecord]]:
    """Group the records of tensors by their file."""
    groups: list[list[TensorRecord]] = [[] for _ in range(num_files)]
    for leaf in leaves:
        for _, record in pieces(leaf):
            groups[record.file].append(record)
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

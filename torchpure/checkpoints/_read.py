"""Reading of a checkpoint: its manifest, and the leaves from its files."""

import os
from pathlib import Path
from typing import Any

from torchpure.errors import CheckpointError

from ._files import existing_file, read_exactly, reported
from ._manifest import MANIFEST, MAX_BYTES, Manifest, TensorRecord, read_manifest
from ._steps import step_folders
from ._tensor_file import read_tensors
from ._write import by_file, side_by_side


def load_manifest(path: Path, caller: str) -> tuple[Path, Manifest]:
    """Return the folder and the manifest of a checkpoint, or of the newest one in the folder of a `Checkpointer`.

    Raises:
        CheckpointError: there is none, or the manifest is damaged.
    """
    with reported(caller, path):
        if not path.exists():
            raise CheckpointError(f"{caller}: {path}: there is no checkpoint")
        if not path.is_dir():
            raise CheckpointError(f"{caller}: {path} is no folder; wanted the folder of a checkpoint")
        if os.path.lexists(path / MANIFEST):
            return path, _read_manifest(path, caller)
        for folder in reversed(step_folders(path).values()):
            try:
                return folder, _read_manifest(folder, caller)
            except CheckpointError:
                if os.path.lexists(folder):  # else its writer removed it just now
                    raise
    raise CheckpointError(f"{caller}: {path}: there is no {MANIFEST} and no checkpoint of a step in this folder")


def _read_manifest(folder: Path, caller: str) -> Manifest:
    with reported(caller, folder), existing_file(folder / MANIFEST) as (descriptor, size):
        if size > MAX_BYTES:
            raise ValueError(f"{MANIFEST} has {size} bytes; a manifest has at most {MAX_BYTES}")
        data = read_exactly(descriptor, size, MANIFEST)
        try:
            return read_manifest(data)
        except ValueError as error:
            raise ValueError(f"{MANIFEST}: {error}") from None


def read_leaves(folder: Path, manifest: Manifest, wanted: list[bool]) -> list[Any]:
    """Return the wanted leaves, and None for the others; files without wanted leaves are not read.

    Raises:
        ValueError: a file is damaged.
        OSError: a file cannot be read.
    """
    records = by_file(manifest.leaves, len(manifest.files))
    chosen: list[list[bool]] = [[] for _ in records]
    for leaf, is_wanted in zip(manifest.leaves, wanted, strict=True):
        if isinstance(leaf, TensorRecord):
            chosen[leaf.file].append(is_wanted)
    todo = [number for number, flags in enumerate(chosen) if any(flags)]
    read = side_by_side(lambda n: read_tensors(folder, manifest.files[n], records[n], chosen[n]), todo)
    tensors = {number: iter(found) for number, found in zip(todo, read, strict=True)}
    values: list[Any] = []
    for leaf, is_wanted in zip(manifest.leaves, wanted, strict=True):
        if isinstance(leaf, TensorRecord):
            values.append(next(tensors[leaf.file]) if leaf.file in tensors else None)
        else:
            values.append(leaf.value if is_wanted else None)
    return values

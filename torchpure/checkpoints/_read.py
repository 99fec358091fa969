"""Reading of a checkpoint: its manifest, and the leaves from its files."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor

from torchpure.errors import CheckpointError

from ._files import existing_file, read_exactly, reported
from ._manifest import MANIFEST, MAX_BYTES, Leaf, Manifest, TensorRecord, ValueRecord, read_manifest
from ._steps import step_folders
from ._tensor_file import allocate, read_tensors
from ._write import by_file, pieces, side_by_side
from .sharded import Box, copy_part, overlap


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


def read_leaves(folder: Path, manifest: Manifest, wanted: list[Box | None]) -> list[Any]:
    """Return the wanted part of each leaf, and None where there is none; files without wanted parts are not read.

    Raises:
        ValueError: a file is damaged.
        OSError: a file cannot be read.
    """
    records = by_file(manifest.leaves, len(manifest.files))
    chosen: list[list[bool]] = [[] for _ in records]
    targets: list[list[Callable[[Tensor], None]]] = [[] for _ in records]
    values = [_Target(leaf, box) for leaf, box in zip(manifest.leaves, wanted, strict=True)]
    for value in values:
        for place, record in pieces(value.leaf):
            chosen[record.file].append(value.needs(place))
            if chosen[record.file][-1]:
                targets[record.file].append(partial(value.take, place))

    def read(number: int) -> None:
        found = read_tensors(folder, manifest.files[number], records[number], chosen[number])
        for take, tensor in zip(targets[number], [one for one in found if one is not None], strict=True):
            take(tensor)

    side_by_side(read, [number for number, flags in enumerate(chosen) if any(flags)])
    return [value.finished() for value in values]


class _Target:
    """A leaf that is read: its wanted part, filled from one tensor of a file or from several."""

    def __init__(self, leaf: Leaf, wanted: Box | None) -> None:
        self.leaf, self.wanted = leaf, wanted
        self._value: Any = leaf.value if isinstance(leaf, ValueRecord) and wanted is not None else None
        self._lock = Lock()

    def needs(self, place: Box) -> bool:
        """Tell whether the tensor at a place of the leaf has some of the wanted part, or is the whole leaf."""
        return self.wanted is not None and (
            isinstance(self.leaf, TensorRecord) or overlap(place, self.wanted) is not None
        )

    def take(self, place: Box, tensor: Tensor) -> None:
        """Take what is wanted of the tensor at a place of the leaf; threads take different places at once."""
        assert self.wanted is not None
        if self.wanted == place:
            self._value = tensor  # without a copy
            return
        copy_part(tensor, place, self._target(self.wanted), self.wanted)

    def _target(self, wanted: Box) -> Tensor:
        """Return the memory for the wanted part: it is taken after the size of a file is checked."""
        with self._lock:
            if self._value is None:
                assert not isinstance(self.leaf, ValueRecord)
                self._value = allocate(self.leaf.dtype, wanted.shape)
            return self._value

    def finished(self) -> Any:
        """Return the value, when all files are read; a part without elements is in none of them."""
        if self.wanted is not None and not isinstance(self.leaf, ValueRecord):
            return self._target(self.wanted)
        return self._value

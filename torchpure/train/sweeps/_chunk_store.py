"""The finished chunks of a sweep on disk, so that a sweep that was interrupted or killed runs only the others."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.checkpoints import Checkpointer, data_of, describe
from torchpure.errors import CheckpointError
from torchpure.transforms.engine import describe_function

from ._space import Point

Folder = str | os.PathLike[str]


class ChunkStore:
    """The leaves of each finished chunk, by its number; without a folder it keeps nothing."""

    def __init__(self, checkpointer: Checkpointer | None, arguments: dict[str, Any]) -> None:
        """Take an open folder, and what a resumed sweep must share."""
        self._checkpointer, self._arguments, self._next = checkpointer, arguments, 1
        self._written: dict[int, int] = {}  # number of a chunk -> step of its checkpoint
        for step in [] if checkpointer is None else checkpointer.steps():
            self._note(step)

    def _note(self, step: int) -> None:
        assert self._checkpointer is not None
        saved = describe(self._checkpointer.path(step)).metadata
        arguments = saved.get("arguments")
        place = self._checkpointer.folder
        if not isinstance(arguments, dict) or not isinstance(saved.get("chunk"), int):
            raise ValueError(f"sweep: {place} holds checkpoints that no sweep has written: pass another folder")
        other = [name for name, value in self._arguments.items() if arguments.get(name) != value]
        if other:
            raise ValueError(
                f"sweep: the sweep in {place} has another {' and '.join(other)}, so it cannot go on: pass the same, or "
                "another folder"
            )
        self._written[saved["chunk"]], self._next = step, step + 1

    def finished(self) -> set[int]:
        """Return the numbers of the chunks that are there."""
        return {*self._written}

    def save(self, number: int, outcome: Tree) -> None:
        """Save the outcome of a chunk.

        Raises:
            CheckpointError: it cannot be written.
        """
        if self._checkpointer is not None:
            metadata = {"chunk": number, "arguments": self._arguments}
            self._checkpointer.save(self._next, tree.leaves(outcome), metadata=metadata)
            self._next += 1

    def restore(self, number: int, like: Tree) -> Tree:
        """Restore the outcome of a chunk, in the structure of another's.

        Raises:
            CheckpointError: it is damaged, or has another number of leaves.
        """
        assert self._checkpointer is not None
        leaves = self._checkpointer.restore(self._written[number])
        if len(leaves) != len(tree.leaves(like)):
            raise CheckpointError(
                f"sweep: {self._checkpointer.folder}: chunk {number} has {len(leaves)} leaves, but train now returns "
                f"{len(tree.leaves(like))}: pass another folder"
            )
        return tree.unflatten(tree.structure(like), leaves)


@contextmanager
def open_chunk_store(
    folder: Folder | None, resume: bool, arguments: Callable[[], dict[str, Any]]
) -> Iterator[ChunkStore]:
    """Yield the store of a sweep.

    Raises:
        ValueError: there is nothing to resume from, or the folder has checkpoints and `resume` is not given, or they
            are of another sweep.
        TypeError: it is no folder.
        CheckpointError: another process writes there.
    """
    if folder is None:
        if resume:
            raise ValueError("sweep: resume=True needs the folder to resume from: pass checkpoint=FOLDER")
        yield ChunkStore(None, {})
        return
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"sweep: checkpoint: wanted a folder, got {tree.describe(folder)}")
    with Checkpointer(folder, keep=None, every=1) as checkpointer:
        steps = checkpointer.steps()
        if steps and not resume:
            raise ValueError(
                f"sweep: {checkpointer.folder} has {len(steps)} finished chunks: pass resume=True to go on from them, "
                "or another folder"
            )
        yield ChunkStore(checkpointer, arguments())


def arguments_of(
    train: Callable[..., Tree], members: Sequence[Point], keys: Tensor | None, widths: list[int], *, jit: bool
) -> dict[str, Any]:
    """Return what a resumed sweep must share, as JSON has it. Functions and modules are compared by name alone."""
    digest = hashlib.sha256()
    for point in members:
        for name, value in point.items():
            digest.update(f"{name}={_text(value)};".encode())
        digest.update(b"\n")
    keys_hash = "" if keys is None else hashlib.sha256(data_of(keys)).hexdigest()
    return {
        "train": describe_function(train).partition(" (")[0],
        "space": digest.hexdigest(),
        "key": keys_hash,
        "chunk_size": widths,
        "jit": jit,
        "torch": torch.__version__,
    }


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}{hashlib.sha256(data_of(value)).hexdigest()}"
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    return describe_function(value).partition(" (")[0] if callable(value) else type(value).__qualname__

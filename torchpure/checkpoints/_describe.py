"""What a checkpoint holds, without its tensors."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ._dtypes import num_bytes
from ._files import checked_path
from ._manifest import TENSORS, Leaf
from ._read import load_manifest
from ._restore import PathLike

_MAX_SHOWN = 4


class LeafInfo(NamedTuple):
    """A leaf of a checkpoint."""

    path: str
    dtype: str  # of a tensor, or the type of another value
    shape: tuple[int, ...] | None  # None if it is no tensor


class Description(NamedTuple):
    """What a checkpoint holds; its `repr` has at most twelve lines."""

    path: Path
    versions: dict[str, str]  # of torchpure and torch
    metadata: dict[str, Any]
    num_bytes: int  # of all tensors
    files: dict[str, int]  # sizes in bytes by name
    leaves: tuple[LeafInfo, ...]

    def __repr__(self) -> str:
        """Return a summary."""
        tensors = [leaf for leaf in self.leaves if leaf.shape is not None]
        dtypes = Counter([leaf.dtype for leaf in tensors]).most_common(4)
        lines = [
            f"checkpoint {self.path}",
            f"  written by torchpure {self.versions.get('torchpure', '?')}, torch {self.versions.get('torch', '?')}",
            f"  {len(tensors)} tensors, {_size(self.num_bytes)}, in {len(self.files)} files; "
            f"{len(self.leaves) - len(tensors)} other leaves",
            f"  dtypes: {', '.join([f'{dtype} ({count})' for dtype, count in dtypes]) or 'none'}",
            f"  metadata: {_short(repr(self.metadata))}",
            *[
                f"  {_short(leaf.path)}: {leaf.dtype}{'' if leaf.shape is None else leaf.shape}"
                for leaf in self.shown()
            ],
        ]
        more = len(self.leaves) - _MAX_SHOWN
        return "\n".join([*lines, f"  … and {more} more leaves"] if more > 0 else lines)

    def shown(self) -> tuple[LeafInfo, ...]:
        """Return the leaves that `repr` shows."""
        return self.leaves[:_MAX_SHOWN]


def _short(text: str) -> str:
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= 100 else f"{text[:99]}…"


def _size(count: float) -> str:
    units = ["TB", "GB", "MB", "kB", "bytes"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop()
    return f"{count:.4g} {units[-1]}"


def describe(path: PathLike) -> Description:
    """Describe a checkpoint from its manifest; the files of tensors are not read.

    Raises:
        CheckpointError: there is no checkpoint, or its manifest is damaged.

    >>> import tempfile, torch
    >>> from torchpure.checkpoints import save
    >>> path = Path(tempfile.mkdtemp()) / "model"
    >>> save(path, {"w": torch.ones(2, 3), "step": 3})
    >>> describe(path)
    checkpoint ...
      written by torchpure ..., torch ...
      1 tensors, 24 bytes, in 1 files; 1 other leaves
      dtypes: float32 (1)
      metadata: {}
      w: float32(2, 3)
      step: int
    """
    folder, manifest = load_manifest(checked_path(path, "describe"), "describe")
    tensors = [leaf for leaf in manifest.leaves if isinstance(leaf, TENSORS)]
    return Description(
        folder,
        manifest.versions,
        manifest.metadata,
        sum(num_bytes(leaf.dtype, leaf.shape) for leaf in tensors),
        {file.name: file.size for file in manifest.files},
        tuple([_info(leaf) for leaf in manifest.leaves]),
    )


def _info(leaf: Leaf) -> LeafInfo:
    if isinstance(leaf, TENSORS):
        return LeafInfo(leaf.path, leaf.dtype, leaf.shape)
    return LeafInfo(leaf.path, type(leaf.value).__name__, None)

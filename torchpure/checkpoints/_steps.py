"""The folders of a Checkpointer: one a step, and the stray ones of writers that died."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from ._locks import opened_folder, try_lock
from ._manifest import MANIFEST

_STEP = re.compile(r"step-([0-9]{8,19})", re.ASCII)
_STRAY = re.compile(r"\.step-[0-9]{8,19}-[0-9a-f]{8}\.partial", re.ASCII)


def step_path(folder: Path, step: int) -> Path:
    """Return the folder of a step."""
    return folder / f"step-{step:08d}"


def step_folders(folder: Path) -> dict[int, Path]:
    """Return the committed checkpoints by step, in order."""
    found = {}
    for entry in folder.iterdir():
        step = _STEP.fullmatch(entry.name)
        if step and not entry.is_symlink() and os.path.lexists(entry / MANIFEST):
            found[int(step[1])] = entry
    return dict(sorted(found.items()))


def remove_stray(folder: Path) -> None:
    """Remove the temporary folders of dead writers; those of living ones are locked."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if _STRAY.fullmatch(path.name)]:
            with suppress(OSError), opened_folder(path) as descriptor:
                if descriptor is None or try_lock(descriptor):
                    shutil.rmtree(path, ignore_errors=True)

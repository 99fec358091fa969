"""The folders of a Checkpointer: one a step, which of them stay, and the stray ones of writers that died."""

import math
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from torchpure.errors import InputError

from ._locks import opened_folder, try_lock
from ._manifest import MANIFEST
from ._values import encode

Best = tuple[str, Literal["min", "max"]]  # a metric, and which of its values is the best
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


def check_options(keep: int | None, best: Best | None, every: int) -> None:
    """Check the options of a Checkpointer.

    Raises:
        InputError: one is invalid.
    """
    if keep is not None and (type(keep) is not int or keep < 1):
        raise InputError(f"Checkpointer: keep: wanted None or at least 1, got {keep!r}")
    if type(every) is not int or every < 1:
        raise InputError(f"Checkpointer: every: wanted at least 1, got {every!r}")
    match best:
        case None | (str(), "min" | "max"):
            return
    raise InputError(f'Checkpointer: best: wanted a pair such as ("loss", "min"), got {best!r:.60}')


def best_of(scores: Mapping[int, float | None], mode: Literal["min", "max"]) -> int | None:
    """Return the step with the best score, the first of equals; None if no step has one.

    >>> best_of({1: 0.5, 2: 0.1, 3: 0.1, 4: None}, "min")
    2
    """
    known = [(score, step) for step, score in scores.items() if score is not None and not math.isnan(score)]
    sign = 1 if mode == "min" else -1
    return min(known, key=lambda pair: (sign * pair[0], pair[1]), default=(0.0, None))[1]


def superfluous(
    steps: list[int], step: int, keep: int | None, best: Best | None, scores: Mapping[int, float | None]
) -> list[int]:
    """Return the saved steps that go when a step is new: all but the last, the best, and those of unknown score."""
    if keep is None:
        return []
    stay: set[int | None] = {*steps[-keep:], step}
    if best is not None:
        # a manifest that cannot be read may be that of the best
        stay |= {best_of(scores, best[1])} | {old for old in steps if scores[old] is None}
    return [old for old in steps if old not in stay]


def step_record(step: int, metrics: Mapping[str, float | Tensor], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a step's checkpoint.

    Raises:
        InputError: a metric is no number, or the metadata take a name of it.
    """
    taken = {"step", "metrics"} & metadata.keys()
    if taken:
        raise InputError(f"Checkpointer.save: metadata: {sorted(taken)} are names of its own; choose others")
    try:
        values = {str(name): encode(float(value)) for name, value in metrics.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Checkpointer.save: metrics: wanted numbers by name: {error}") from None
    return {"step": step, "metrics": values, **metadata}

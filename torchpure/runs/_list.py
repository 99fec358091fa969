"""The runs of a folder, a line each, from the ends of their files."""

import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from torchpure.errors import InputError

from .saved import is_sweep, open_folder, read_description, read_last

MAX_ENTRIES = 10_000


class Listed(NamedTuple):
    """What `torchpure ls` shows of one run."""

    name: str
    target: str
    status: str  # done, diverged, interrupted, terminated, unfinished, sweep or unreadable
    steps: int | None
    train_loss: float | None  # of an unfinished run, the newest loss
    test_loss: float | None
    age: float  # seconds since its metrics changed
    problem: str | None  # why it cannot be read


def list_runs(folder: str | Path = "runs") -> list[Listed]:
    """List the runs of a folder, the newest first; links and folders that hold no run are left out.

    Raises:
        InputError: the folder is missing.

    >>> import torchpure as tp
    >>> [run.name for run in tp.runs.list_runs("runs")]  # doctest: +SKIP
    ['2-sin-x-2-pi', 'houses-price']
    """
    parent = open_folder(Path(folder), "a folder of runs")
    with os.scandir(parent) as entries:
        names = [
            entry.name
            for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        ]
    found = [_listed(parent / name) for name in names if _holds_run(parent / name)]
    return sorted(found, key=lambda run: (run.age, run.name))


def _holds_run(folder: Path) -> bool:
    return os.path.lexists(folder / "config.json") or is_sweep(folder)


def _listed(folder: Path) -> Listed:
    age = max(0.0, time.time() - _changed(folder))
    try:
        if is_sweep(folder):
            return Listed(folder.name, _sweep_target(folder), "sweep", None, None, None, age, None)
        description, last = read_description(folder), read_last(folder)
    except InputError as error:
        return Listed(folder.name, "", "unreadable", None, None, None, age, str(error))
    config = description.config
    target = " ".join(str(config[name]) for name in ("target", "column") if config.get(name))
    return Listed(
        folder.name,
        target,
        last.get("status", "unfinished"),
        _integer(last.get("steps", last.get("step"))),
        _finite(last.get("train_loss", last.get("loss"))),
        _finite(last.get("test_loss")),
        age,
        None,
    )


def _changed(folder: Path) -> float:
    for path in (folder / "metrics.jsonl", folder):
        try:
            return path.lstat().st_mtime
        except OSError:
            continue
    return time.time()


def _sweep_target(folder: Path) -> str:
    try:
        return str(read_description(folder).config.get("target", ""))
    except InputError:
        return ""


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < math.inf else None

"""The runs of a folder, a line each, from the ends of their files."""

import math
import os
import time
from contextlib import suppress
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
    members: int | None = None  # of a sweep; its losses are those of its best member


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
            return _listed_sweep(folder, age)
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


def _listed_sweep(folder: Path, age: float) -> Listed:
    """Describe a sweep by its configuration and its best run, which one of another program may lack."""
    target, members, last = "", None, {}
    with suppress(InputError):
        description = read_description(folder)
        target, members = str(description.config.get("target", "")), description.members
        if not (folder / "best").is_symlink():
            last = read_last(folder / "best")
    train_loss, test_loss = (_finite(last.get(name)) for name in ("train_loss", "test_loss"))
    return Listed(folder.name, target, "sweep", None, train_loss, test_loss, age, None, members)


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < math.inf else None

"""A run that is trained longer than it was asked to: how many steps, and whether it equals a run asked for at once."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from torchpure.errors import InputError

from ._loaded import SavedRun
from .fits import MAX_STEPS, FitConfig, steps_per_epoch


class Longer(NamedTuple):
    """More steps for a run."""

    config: FitConfig  # with the new number of steps
    why_inexact: str  # empty: the result is that of a run which had this number from its start


def longer(saved: SavedRun, steps: int | str | None, epochs: int | str | None, has_checkpoint: bool) -> Longer | None:
    """Return the configuration of a run with more steps; None if no more are wanted.

    A number counts all steps or epochs of the run; a text such as "+500" counts those to add.

    Raises:
        InputError: the number is none, is not larger than that of the run, or the run cannot go on.
    """
    if steps is None and epochs is None:
        return None
    if steps is not None and epochs is not None:
        raise InputError("--steps, --epochs: wanted one of them")
    if saved.status == "diverged":
        raise InputError(f"{saved.directory}: the run is diverged; fit again with a smaller --learning-rate")
    if saved.status == "done" and not has_checkpoint:
        raise InputError(f"{saved.directory}: has no checkpoint to go on from; fit again with more --steps")
    config = saved.config
    option, given, per = ("--steps", steps, 1) if epochs is None else ("--epochs", epochs, _epoch(saved))
    total = _total(option, given, config.steps, per)
    if total <= config.steps:
        raise InputError(
            f"{option}: the run has {config.steps} steps{f' of {per} an epoch' if per > 1 else ''}; wanted a larger "
            f"number in all, or +N for N more, got {str(given)[:40]!r}"
        )
    if total > MAX_STEPS:
        raise InputError(f"{option}: wanted at most {MAX_STEPS} steps in all, got {total}")
    return Longer(config.model_copy(update={"steps": total}), _why_inexact(config, total))


def _total(option: str, given: int | str | None, before: int, per: int) -> int:
    text = str(given).strip()
    if isinstance(given, bool) or not re.fullmatch(r"\+?[0-9]{1,12}", text, re.ASCII):
        raise InputError(f"{option}: wanted an integer such as 2000, or +500 for 500 more, got {text[:40]!r}")
    return int(text) * per + (before if text.startswith("+") else 0)


def _epoch(saved: SavedRun) -> int:
    if saved.config.batch_size is None:
        raise InputError("--epochs: each step of this run takes all points: wanted --steps")
    return steps_per_epoch(saved.description.data.train_points, saved.config.batch_size)


def _why_inexact(config: FitConfig, total: int) -> str:
    if config.schedule != "cosine":
        return ""
    return (
        f"the cosine schedule was that of {config.steps} steps and is now that of {total}, so the result differs from "
        f"one of `fit --steps {total}`; a run with --schedule constant goes on exactly"
    )


def describe_longer(saved: SavedRun, wanted: Longer) -> list[Any]:
    """Return what `config.json` says of all changes of the number of steps."""
    before = (saved.description.model_extra or {}).get("trained_longer", [])
    change = {"from": saved.config.steps, "to": wanted.config.steps, "exact": not wanted.why_inexact}
    return [*(before if isinstance(before, list) else []), change]


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run has a checkpoint."""
    return any(path.name.startswith("step-") for path in (folder / "checkpoints").glob("*"))

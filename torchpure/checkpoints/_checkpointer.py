"""Checkpoints of a training run: one folder a step, written in the background, of which the last and the best stay."""

import math
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from torch import Tensor

from torchpure._types import Tree
from torchpure.errors import CheckpointError, InputError

from ._files import checked_path, reported
from ._locks import lock_writer
from ._plan import Plan, make_plan
from ._read import load_manifest
from ._restore import PathLike, checked_metadata, restore
from ._steps import remove_stray, step_folders, step_path
from ._values import decode, encode
from ._write import temporary_path, write_checkpoint

Best = tuple[str, Literal["min", "max"]]


class Checkpointer:
    """Save the steps of a run in one folder, and keep the last and the best.

    `keep` is the number of newest checkpoints that stay, None for all. `best=("loss", "min")` also keeps the one with
    the least loss of those saved; the first of equals, and never NaN. `every` is the number of steps between saves, for
    `should_save`. With `asynchronous`, `save` copies the tensors and returns while a thread writes. One write is in
    flight: the next call waits for it, and raises its error. Call `close` at the end, or use a `with` block.

    A folder has one writer at a time. Anyone may read it with `tp.restore(folder)`, which restores the newest.

    Raises:
        InputError: an option is invalid.
        TypeError: the folder is no path.
        CheckpointError: the folder cannot be made, or another writer has it.

    >>> import tempfile, torch
    >>> with Checkpointer(tempfile.mkdtemp(), keep=1, best=("loss", "min")) as checkpoints:
    ...     for step, loss in [(1, 0.5), (2, 0.1), (3, 0.2)]:
    ...         checkpoints.save(step, {"w": torch.full((2,), loss)}, metrics={"loss": loss})
    ...     checkpoints.steps(), checkpoints.best_step(), checkpoints.restore(2)
    ([2, 3], 2, {'w': tensor([0.1000, 0.1000])})
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        keep: int | None = 3,
        best: Best | None = None,
        every: int = 100,
        asynchronous: bool = True,
    ) -> None:
        """Make the folder if it is absent, lock it, and remove what dead writers left."""
        _check_options(keep, best, every)
        self.folder = checked_path(folder, "Checkpointer")
        self.keep, self.best, self.every, self.asynchronous = keep, best, every, asynchronous
        with reported("Checkpointer", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._release = weakref.finalize(self, os.close, lock_writer(self.folder))
        remove_stray(self.folder)
        self._before_close: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._thread: threading.Thread | None = None
        self.seconds = 0.0  # that the newest write in the background took
        self._error: BaseException | None = None  # of the write in the background, until it is raised
        self._scores: dict[int, float] = {}  # by step; read once from each manifest

    def should_save(self, step: int) -> bool:
        """Return whether a step is a multiple of `every`."""
        return step % self.every == 0

    def save(
        self,
        step: int,
        tree: Tree,
        metrics: Mapping[str, float | Tensor] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Save a tree as the checkpoint of a step, which must be greater than the saved ones.

        Raises:
            InputError: the step, a leaf, a metric or the metadata is invalid.
            CheckpointError: it cannot be written; in the background, then the error of the write before.
        """
        self.wait()
        self._check_step(step)
        record = _record(step, metrics or {}, checked_metadata(metadata, "Checkpointer.save"))
        if self.best and self.best[0] not in record["metrics"]:
            raise InputError(f"Checkpointer.save: metrics: wanted {self.best[0]!r}, got {[*record['metrics']]}")
        plan = make_plan(tree, "Checkpointer.save")
        if not self.asynchronous:
            self._write(step, plan, record)
            return
        copies = [[tensor.detach().to("cpu", copy=True) for tensor in file] for file in plan.tensors]
        arguments = (step, plan._replace(tensors=copies), record)
        thread = threading.Thread(target=self._write_in_background, args=arguments, name="torchpure checkpoint")
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or the system has no more threads
            self._write(*arguments)
        else:
            self._thread = thread

    def busy(self) -> bool:
        """Return whether a write in the background goes on, so that `save` would wait."""
        return self._thread is not None and self._thread.is_alive()

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return step_path(self.folder, step)

    def wait(self) -> None:
        """Wait for the write in the background.

        Raises:
            CheckpointError: it failed, or the Checkpointer is closed.
        """
        self._join()
        if not self._release.alive:
            raise CheckpointError(f"Checkpointer: {self.folder} is closed")

    def before_close(self, method: Callable[[], None]) -> None:
        """Have `close` call a method first, if its object is then alive."""
        self._before_close = [one for one in self._before_close if one() is not None] + [weakref.WeakMethod(method)]

    def close(self) -> None:
        """Wait for the write in the background, and let another writer have the folder.

        Raises:
            CheckpointError: the write failed.
        """
        waiting, self._before_close = self._before_close, []
        try:
            for reference in waiting:
                if (method := reference()) is not None:
                    method()
            self._join()
        finally:
            self._release()

    def steps(self) -> list[int]:
        """List the saved steps in order."""
        self.wait()
        with reported("Checkpointer", self.folder):
            return [*step_folders(self.folder)]

    def latest(self) -> int | None:
        """Return the newest step; None if there is none."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Return the step with the best metric; None if no step has one.

        Raises:
            InputError: the Checkpointer was made without `best`.
        """
        if self.best is None:
            raise InputError('Checkpointer.best_step: made without `best`; give best=("loss", "min"), for example')
        return self._best_of(self.steps())

    def metrics(self, step: int) -> dict[str, float]:
        """Return the metrics of a saved step.

        Raises:
            CheckpointError: the step is not there, or damaged.
        """
        self.wait()
        return self._read_metrics(step)

    def restore(self, step: int | None = None, like: Tree = None, **options: Any) -> Tree:
        """Restore a step, by default the newest; the options are those of `tp.restore`.

        Raises:
            CheckpointError: the step is not there, or damaged.
            StructureError: paths or containers differ from `like`.
            InputError: shapes, dtypes or kinds differ from `like`.
        """
        step = self.latest() if step is None else step
        self.wait()
        if step is None:
            raise CheckpointError(f"Checkpointer.restore: {self.folder}: there is no checkpoint yet")
        return restore(step_path(self.folder, step), like, **options)

    def __enter__(self) -> Self:
        """Return the Checkpointer, which the end of the block closes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; an error of the block is not replaced by one of the write."""
        try:
            self.close()
        except CheckpointError as failed:
            if error is None:
                raise
            error.add_note(f"and {failed}")

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write_in_background(self, step: int, plan: Plan, record: dict[str, Any]) -> None:
        start = time.monotonic()
        try:
            self._write(step, plan, record)
        except BaseException as error:  # raised by the next call
            self._error = error
        self.seconds = time.monotonic() - start

    def _write(self, step: int, plan: Plan, record: dict[str, Any]) -> None:
        write_checkpoint(step_path(self.folder, step), plan, record, "Checkpointer.save")
        with reported("Checkpointer.save: removing old checkpoints", self.folder):
            for old in self._superfluous(step):
                hidden = temporary_path(old)  # a folder that is half removed must not look whole
                old.rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)

    def _superfluous(self, step: int) -> list[Path]:
        folders = step_folders(self.folder)
        if self.keep is None:
            return []
        steps = [*folders]
        stay = {*steps[-self.keep :], step}
        if self.best is not None:
            # a manifest that cannot be read may be that of the best
            stay |= {self._best_of(steps)} | {old for old in steps if self._score(old) is None}
        return [path for old, path in folders.items() if old not in stay]

    def _best_of(self, steps: list[int]) -> int | None:
        assert self.best is not None
        scores = [(score, step) for step in steps if (score := self._score(step)) is not None and not math.isnan(score)]
        sign = 1 if self.best[1] == "min" else -1
        return min(scores, key=lambda pair: (sign * pair[0], pair[1]), default=(0.0, None))[1]

    def _score(self, step: int) -> float | None:
        """Return the metric that `best` names; None if the manifest cannot be read."""
        assert self.best is not None
        if step not in self._scores:
            try:
                self._scores[step] = self._read_metrics(step).get(self.best[0], math.nan)
            except CheckpointError:
                return None
        return self._scores[step]

    def _read_metrics(self, step: int) -> dict[str, float]:
        path = step_path(self.folder, step)
        _, manifest = load_manifest(path, "Checkpointer")
        try:
            return {name: decode("float", value) for name, value in manifest.metadata["metrics"].items()}
        except (KeyError, AttributeError, ValueError):
            raise CheckpointError(f"Checkpointer: {path} has no metrics; a Checkpointer did not write it") from None

    def _check_step(self, step: int) -> None:
        latest = self.latest()
        if type(step) is not int or not 0 <= step < 1 << 63:
            raise InputError(f"Checkpointer.save: step: wanted an integer of 64 bits, not negative, got {step!r:.40}")
        if latest is not None and step <= latest:
            raise InputError(
                f"Checkpointer.save: step {step}: wanted more than {latest}, the newest in {self.folder}. To write "
                "another history, use another folder"
            )


def _check_options(keep: int | None, best: Best | None, every: int) -> None:
    if keep is not None and (type(keep) is not int or keep < 1):
        raise InputError(f"Checkpointer: keep: wanted None or at least 1, got {keep!r}")
    if type(every) is not int or every < 1:
        raise InputError(f"Checkpointer: every: wanted at least 1, got {every!r}")
    match best:
        case None | (str(), "min" | "max"):
            return
    raise InputError(f'Checkpointer: best: wanted a pair such as ("loss", "min"), got {best!r:.60}')


def _record(step: int, metrics: Mapping[str, float | Tensor], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a step's checkpoint."""
    taken = {"step", "metrics"} & metadata.keys()
    if taken:
        raise InputError(f"Checkpointer.save: metadata: {sorted(taken)} are names of its own; choose others")
    try:
        values = {str(name): encode(float(value)) for name, value in metrics.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Checkpointer.save: metrics: wanted numbers by name: {error}") from None
    return {"step": step, "metrics": values, **metadata}

"""Checkpoints of a training run: one folder a step, written in the background, of which the last and the best stay."""

import math
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from torchpure._types import Tree
from torchpure.errors import CheckpointError, InputError

from ._files import checked_path, reported
from ._locks import WriterLock
from ._plan import Plan, make_plan
from ._read import load_manifest
from ._restore import PathLike, checked_metadata, restore
from ._steps import Best, best_of, check_options, remove_stray, step_folders, step_path, step_record, superfluous
from ._values import decode
from ._write import temporary_path, write_checkpoint, write_together
from .sharded import close_group, has_distributed, open_group, rank_of_program, telling, telling_all

if TYPE_CHECKING:
    from torchpure.parallel.messages import Group

_SAVE = "Checkpointer.save"


class Checkpointer:
    """Save the steps of a run in one folder, and keep the last and the best.

    `keep` is the number of newest checkpoints that stay, None for all. `best=("loss", "min")` also keeps the one with
    the least loss of those saved; the first of equals, and never NaN. `every` is the number of steps between saves, for
    `should_save`. With `asynchronous`, `save` copies the tensors and returns while a thread writes. One write is in
    flight: the next call waits for it, and raises its error. Call `close` at the end, or use a `with` block.

    Of trees with DTensors, all processes of the program make a Checkpointer of the folder, and all call `save`.

    A folder has one writer at a time: a process, or the processes of one program. Anyone may read it with
    `tp.restore(folder)`, which restores the newest.

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
        check_options(keep, best, every)
        self.folder = checked_path(folder, "Checkpointer")
        self.keep, self.best, self.every, self.asynchronous = keep, best, every, asynchronous
        with reported("Checkpointer", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(self.folder)
        self._release = weakref.finalize(self, self._lock.release)
        if rank_of_program() == 0:  # the others become writers if they save a tree of their own
            telling_all(self._become_writer)
        self._before_close: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._group: Group | None = None  # of all processes, for the messages of saves of DTensors
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
            MeshError: of DTensors, another process cannot write, has ended, or saves another tree.
        """
        self.wait()
        arguments = (step, tree, metrics or {}, metadata)
        if not has_distributed(tree):
            self._become_writer()
            self._save(*arguments)
            return
        if self._group is None:
            self._group = telling_all(lambda: open_group(f"{_SAVE} of step {step}"))
        telling(self._group, lambda: self._save(*arguments))

    def _save(
        self, step: int, tree: Tree, metrics: Mapping[str, float | Tensor], metadata: dict[str, Any] | None
    ) -> None:
        self._check_step(step)
        record = step_record(step, metrics, checked_metadata(metadata, _SAVE))
        if self.best and self.best[0] not in record["metrics"]:
            raise InputError(f"{_SAVE}: metrics: wanted {self.best[0]!r}, got {[*record['metrics']]}")
        plan = make_plan(tree, _SAVE)
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

    def _become_writer(self) -> None:
        """Lock the folder, unless it is locked; remove what dead writers left."""
        with reported("Checkpointer", self.folder):
            if self._lock.take():
                remove_stray(self.folder)

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
            if self._group is not None:
                close_group(self._group)
                self._group = None

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
        return best_of({step: self._score(step) for step in self.steps()}, self.best[1])

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
        path = step_path(self.folder, step)
        if plan.owners:
            group = self._group
            assert group is not None, "save opens it"
            telling(group, lambda: write_together(path, plan, record, _SAVE, group, lambda: self._remove_old(step)))
            return
        write_checkpoint(path, plan, record, _SAVE)
        self._remove_old(step)

    def _remove_old(self, step: int) -> None:
        with reported(f"{_SAVE}: removing old checkpoints", self.folder):
            folders = step_folders(self.folder)
            scores = {} if self.best is None or self.keep is None else {old: self._score(old) for old in folders}
            for old in superfluous([*folders], step, self.keep, self.best, scores):
                hidden = temporary_path(folders[old])  # a folder that is half removed must not look whole
                folders[old].rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)

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

"""Save a run between its windows, and go on exactly from there."""

import atexit
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.checkpoints import Checkpointer, check_restorable, data_of, describe
from torchpure.checkpoints.sharded import any_process, has_distributed
from torchpure.errors import CheckpointError, InputError, StructureError, TransformError
from torchpure.transforms import ShapeDtype

from ._windows import CHUNK

Checkpoint = str | os.PathLike[str] | Checkpointer
METRIC = "loss"  # that is saved with each checkpoint
MIN_INTERVAL = 50  # times the time of the last save; a run that is killed loses at most that much
Arguments = Mapping[str, Any]  # by name, as JSON has them


class Position(NamedTuple):
    """Where a run stands between two windows."""

    step: int
    carry: Any
    unreported: list[Tensor]  # the losses of the steps since the last Progress


class Store:
    """Where a run saves its positions; without a Checkpointer it saves nothing."""

    def __init__(self, caller: str, checkpointer: Checkpointer | None, arguments: Arguments, every: int) -> None:
        """Save at the first window that ends at or after each multiple of `every` steps."""
        self._caller, self._checkpointer, self._arguments, self._every = caller, checkpointer, dict(arguments), every
        self._process = os.getpid()
        self.closed = False
        self._start: Tree = None  # what the run carries at its start, without its numbers
        self._noted = 0  # the newest step that was noted
        self._saved = 0  # the newest saved step
        self._saved_at = -math.inf  # the time of that save, in seconds
        self._last: Position | None = None  # the newest position
        self.history: list[Tensor] = []  # the losses that the caller returns at its end
        self.callback_state: Tree = None

    def start(self, carry: Any) -> Position:
        """Return the newest saved position, or step 0 with this carry.

        Raises:
            ValueError: the saved run has other arguments, or what this one carries cannot be saved.
            StructureError: it has another model or optimizer.
        """
        if self._checkpointer is None:
            return Position(0, carry, [])
        carried = {**_named(carry), "callback_state": self.callback_state}
        self._start = tree.map(_without_numbers, carried)
        self._check(carried)  # now, not after hours
        newest = self._checkpointer.latest()
        if newest is None:
            return Position(0, carry, [])
        self._saved = newest
        saved = _restore(self._caller, self._checkpointer, newest, self._arguments, (carry, self.callback_state))
        self.history, self.callback_state = _parts(saved["history"]), saved["callback_state"]
        carry = tuple(_laid_out(value, saved[name]) for name, value in _named(carry).items())
        return Position(newest, carry, _parts(saved["unreported"]))

    def note(self, step: int, carry: Any, unreported: list[Tensor]) -> None:
        """Take the newest position; save it if it is due and the last save is long enough ago.

        Raises:
            CheckpointError: the Checkpointer was closed, or cannot write.
        """
        if self._checkpointer is None:
            return
        if self.closed:
            raise CheckpointError(f"{self._caller}: {self._checkpointer.folder} was closed before the end of the run")
        if self._noted == 0:
            self._check({**_named(carry), "callback_state": self.callback_state})
        self._noted = step
        self._last = Position(step, carry, [*unreported])
        if step // self._every > self._saved // self._every and not self._too_soon(self._checkpointer):
            self._saved_at = time.monotonic()
            self._save(self._checkpointer)

    def _check(self, carried: dict[str, Tree]) -> None:
        """Check that a resumed run could read what this one carries.

        Raises:
            InputError: it could not.
        """
        check_restorable(carried, self._start, "its start (keep the containers, shapes and dtypes)", self._caller)

    def _too_soon(self, checkpointer: Checkpointer) -> bool:
        """Return whether a save now would take more than a small share of the time of the run."""
        early = checkpointer.busy() or time.monotonic() - self._saved_at < MIN_INTERVAL * checkpointer.seconds
        assert self._last is not None
        if not has_distributed(self._last.carry):
            return early
        return any_process(f"{self._caller}: the save of step {self._last.step}", early)  # all save, or none

    def close(self) -> None:
        """Save the newest position, wait until it is on the disk, and take no more."""
        is_open, self.closed = not self.closed, True
        if is_open and self._checkpointer is not None:
            self._save(self._checkpointer)
            self._checkpointer.wait()

    def _save(self, checkpointer: Checkpointer) -> None:
        """Save the newest position, unless it is saved, or this process is a fork of the one that runs."""
        position, self._last = self._last, None
        if position is None or position.step <= self._saved or os.getpid() != self._process:
            return
        saved = {**_named(position.carry), "callback_state": self.callback_state}
        self._check(saved)
        saved |= {"unreported": _joined(position.unreported), "history": _joined(self.history)}
        newest = (position.unreported or self.history)[-1:]
        metrics = {METRIC: float(newest[0][-1].detach())} if newest else {}
        checkpointer.save(position.step, saved, metrics=metrics, metadata={"arguments": self._arguments})
        self._saved = position.step


@contextmanager
def open_store(
    caller: str, checkpoint: Checkpoint | None, resume: bool, arguments: Callable[[], Arguments]
) -> Iterator[Store]:
    """Yield the store of a run; at the end, also after an error, its newest position is saved.

    `arguments` returns those that a resumed run must share.

    Raises:
        TransformError: a run under a transform is to be saved.
        ValueError: there is nothing to resume from, `resume` is not given and the folder has checkpoints, or the
            Checkpointer keeps the best by another metric than the loss.
        TypeError: `checkpoint` is neither a folder nor a Checkpointer.
        CheckpointError: a checkpoint cannot be written or read.
    """
    if checkpoint is None:
        if resume:
            raise ValueError(f"{caller}: resume=True needs the folder to resume from: pass checkpoint=FOLDER")
        yield Store(caller, None, {}, 1)
        return
    if not tree.unwatched():
        raise TransformError(f"{caller}: checkpoint= is for a run outside of all transforms; this one is inside of one")
    with _checkpointer(caller, checkpoint) as (checkpointer, every):
        newest = checkpointer.latest()
        if newest is not None and not resume:
            raise ValueError(
                f"{caller}: {checkpointer.folder} has a checkpoint of step {newest}: pass resume=True to go on from "
                "it, or another folder"
            )
        store = Store(caller, checkpointer, arguments(), every)
        # an iterator over the run may live longer than the Checkpointer, and at the end of the interpreter too
        checkpointer.before_close(store.close)
        atexit.register(store.close)
        try:
            yield store
        finally:
            atexit.unregister(store.close)
            store.close()


@contextmanager
def _checkpointer(caller: str, checkpoint: Checkpoint) -> Iterator[tuple[Checkpointer, int]]:
    if isinstance(checkpoint, Checkpointer):
        if checkpoint.best is not None and checkpoint.best[0] != METRIC:
            raise ValueError(
                f"{caller}: a run saves the metric {METRIC!r}; its Checkpointer has best={checkpoint.best!r}"
            )
        yield checkpoint, checkpoint.every
        return
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"{caller}: checkpoint: wanted a folder or a Checkpointer, got {tree.describe(checkpoint)}")
    with Checkpointer(checkpoint) as made:
        yield made, 1  # after each window


def steps_per_window(checkpoint: Checkpoint | None, every: int | None) -> int | None:
    """Return how many steps a window may have, so that windows end where reports and checkpoints are due."""
    if not isinstance(checkpoint, Checkpointer):
        return every
    if every is None:
        return min(checkpoint.every, CHUNK)
    return every if checkpoint.every >= every else math.gcd(every, checkpoint.every)


def hash_of(tensors: tuple[Tensor, ...], names: tuple[Any, ...] | None) -> str:
    """Return the SHA-256 of the names, shapes, dtypes and values of tensors.

    Raises:
        TypeError: a tensor is not strided.
    """
    digest = hashlib.sha256(b"" if names is None else repr(names).encode())
    for tensor in tensors:
        if tensor.layout is not torch.strided or tensor.is_nested:
            raise TypeError(
                f"fit: checkpoint: wanted data in strided tensors, got {tree.describe(tensor)} of layout "
                f"{tensor.layout}: pass an iterable of batches, as in [(x, y)]"
            )
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(data_of(tensor))
    return digest.hexdigest()


def _restore(
    caller: str, checkpointer: Checkpointer, step: int, arguments: dict[str, Any], like: tuple[Any, Tree]
) -> dict[str, Any]:
    description = describe(checkpointer.path(step))
    _check_arguments(caller, checkpointer, description.metadata.get("arguments"), arguments)
    carry, callback_state = like
    lengths = {
        leaf.path: ShapeDtype(leaf.shape, getattr(torch, leaf.dtype))
        for leaf in description.leaves
        if leaf.path in ("unreported", "history") and leaf.shape is not None
    }
    try:
        return checkpointer.restore(step, like={**_named(carry), "callback_state": callback_state, **lengths})
    except (StructureError, InputError) as error:
        differ = str(error).partition("`like`: ")[2] or str(error)
        raise type(error)(
            f"{caller}: the run in {checkpointer.folder} has other parameters, another optimizer or callbacks, so "
            f"it cannot go on: {differ}"
        ) from None


def _without_numbers(leaf: Any) -> Any:
    return ShapeDtype(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _named(carry: Any) -> dict[str, Tree]:
    return dict(zip(("params", "opt_state", "state"), carry, strict=True))


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)


def _parts(joined: Tensor) -> list[Tensor]:
    return [joined] if len(joined) else []


def _laid_out(like: Any, restored: Any) -> Any:
    """Give restored tensors the memory layout of those they stand for, because kernels are chosen by it."""

    def lay_out(old: Any, new: Any) -> Any:
        if not isinstance(old, Tensor) or old.stride() == new.stride():
            return new
        return torch.empty_like(old, memory_format=torch.preserve_format).copy_(new)

    return tree.map(lay_out, like, restored)


def _check_arguments(caller: str, checkpointer: Checkpointer, saved: Any, given: dict[str, Any]) -> None:
    if not isinstance(saved, dict):
        raise ValueError(f"{caller}: {checkpointer.folder} holds checkpoints that no run of {caller} has written")
    other = [name for name in given if name not in saved or saved[name] != given[name]]
    if other:
        shown = "; ".join(_difference(name, saved.get(name), given[name]) for name in other[:5])
        raise ValueError(
            f"{caller}: the run in {checkpointer.folder} has other arguments, so it cannot go on exactly: {shown}. "
            "Pass the same, or another folder with params= and opt_state="
        )


def _difference(name: str, saved: Any, given: Any) -> str:
    is_hash = name == "data" and isinstance(saved, str) and isinstance(given, str)
    return f"{name} differs" if is_hash else f"{name}: saved {saved!r:.60}, got {given!r:.60}"

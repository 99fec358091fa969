"""`metrics.jsonl` while a run goes on: a line a step, so that `tail -f` follows it, and a last line with the result."""

import errno
import json
import math
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from torchpure.errors import InputError

NAME = "metrics.jsonl"


class Log:
    """The lines of a run, and the losses in them."""

    def __init__(self, file: BinaryIO, losses: "array[float]") -> None:
        """Go on after the lines of these losses."""
        self._file = file
        self.losses = losses

    def step(self, step: int, loss: float, validation_loss: float | None = None) -> None:
        """Write the line of a step; `losses` is the business of the training."""
        finite = validation_loss is not None and math.isfinite(validation_loss)
        more = f', "validation_loss": {validation_loss!r}' if finite else ""
        self._write(f'{{"step": {step}, "loss": {loss!r}{more}}}\n'.encode())

    def end(self, result: Mapping[str, Any]) -> None:
        """Write the last line."""
        self._write(json.dumps(result).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        if self._file.write(line) != len(line):  # the file has no buffer, and a full disk takes the first part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def open_log(folder: Path, steps: int) -> Iterator[Log]:
    """Open the metrics of a run; keep the lines of its first steps, and remove what came after them.

    Raises:
        InputError: the file does not have the lines of these steps.
    """
    path = folder / NAME
    with path.open("a+b", buffering=0) as file:  # each line is on its way to the disk at once
        losses, length = _read(path, steps)
        file.truncate(length)
        yield Log(file, losses)


def _read(path: Path, steps: int) -> tuple["array[float]", int]:
    """Return the losses of the first steps, and the length of their lines."""
    losses, length = array("d"), 0
    if not steps:
        return losses, length
    with path.open("rb") as reader:
        for step in range(1, steps + 1):
            line = reader.readline()
            length += len(line)
            try:
                values = json.loads(line)
                losses.append(values["loss"])
                if values["step"] != step or not line.endswith(b"\n"):
                    raise ValueError
            except (ValueError, KeyError, TypeError, RecursionError):
                raise InputError(
                    f"{path}: wanted the line of step {step} (the newest checkpoint is of step {steps}), got "
                    f"{line[:60]!r}; the file was changed or cut"
                ) from None
    return losses, length

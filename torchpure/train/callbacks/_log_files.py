"""Log files: a line for each report, written at once, which a run that goes on from a checkpoint continues."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torchpure._types import Params

from ._callback import Callback
from ._metrics import Metric, mean_loss
from ._progress import Progress

Row = dict[str, Any]  # the step and the metrics, as Python numbers


class LogState(NamedTuple):
    """State of `csv_log` and `jsonl_log`."""

    size: int  # of the file after the last report, in bytes; 0: the file is started anew


def log_file(
    path: str | os.PathLike[str],
    metrics: Mapping[str, Metric] | None,
    header: Callable[[Sequence[str]], str],
    line: Callable[[Row], str],
) -> Callback[LogState]:
    """Append a line to a file at each report; what lies behind the saved size was never saved, and is dropped.

    Raises:
        ValueError: a metric is called "step".
    """
    file = Path(path)
    if "step" in (metrics or {}):
        raise ValueError('metrics: "step" is a name of its own; choose another')
    columns: dict[str, Metric] = {"loss": lambda progress: progress.loss, "mean_loss": mean_loss, **(metrics or {})}

    def init(params: Params) -> LogState:
        return LogState(0)

    def update(state: LogState, progress: Progress) -> tuple[LogState, bool]:
        row: Row = {"step": progress.step} | {name: float(metric(progress)) for name, metric in columns.items()}
        return LogState(_write_at(file, int(state.size), header(list(row)).encode(), line(row).encode())), False

    return Callback(init, update)


def _write_at(file: Path, size: int, header: bytes, line: bytes) -> int:
    """Write a line after the first `size` bytes of a file, and end it there. Return its new size.

    A file that is shorter was deleted or cut: its whole lines stay, and one without lines gets the header.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("r+b" if file.exists() else "w+b") as stream:
        length = stream.seek(0, os.SEEK_END)
        if length < size:
            stream.seek(0)
            size = stream.read().rfind(b"\n") + 1
        if length != size:
            stream.truncate(size)
        stream.seek(size)
        stream.write(line if size else header + line)
        return stream.tell()

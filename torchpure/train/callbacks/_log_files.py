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
    """Append a line to a file at each report; what lies behind the saved size was never saved, and is dropped."""
    file = Path(path)
    columns: dict[str, Metric] = {"loss": lambda progress: progress.loss, "mean_loss": mean_loss, **(metrics or {})}

    def init(params: Params) -> LogState:
        return LogState(0)

    def update(state: LogState, progress: Progress) -> tuple[LogState, bool]:
        row: Row = {"step": progress.step} | {name: float(metric(progress)) for name, metric in columns.items()}
        text = ("" if state.size else header(list(row))) + line(row)
        return LogState(_write_at(file, int(state.size), text.encode())), False

    return Callback(init, update)


def _write_at(file: Path, size: int, text: bytes) -> int:
    """Write after the first `size` bytes of a file, and end it there. Return its new size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("r+b" if file.exists() else "w+b") as stream:
        stream.seek(0, os.SEEK_END)
        if stream.tell() != size:
            stream.truncate(min(size, stream.tell()))
            stream.seek(0, os.SEEK_END)
        stream.write(text)
        return stream.tell()

"""Scalars for TensorBoard."""

import os
from collections.abc import Mapping
from typing import Any

from torchpure._types import Params

from ._callback import Callback
from ._metrics import Metric, mean_loss
from ._progress import Progress

_MISSING = "tensorboard: the package tensorboard is not installed: run pip install 'torchpure[tensorboard]'"


def tensorboard(logdir: str | os.PathLike[str], *, metrics: Mapping[str, Metric] | None = None) -> Callback[None]:
    """Write the loss, the mean loss since the last report, and `metrics` by name, as scalars for TensorBoard.

    They are flushed at each report. A resumed run writes to the same folder.

    Raises:
        ImportError: the package tensorboard is not installed.

    ::

        tp.fit(net, (x, y), optimizer=optimizer, steps=1000, every=10, callback=tensorboard("runs/first"))
    """
    writer_class = _writer_class()
    columns: dict[str, Metric] = {"loss": lambda progress: progress.loss, "mean_loss": mean_loss, **(metrics or {})}
    opened: list[Any] = []  # the writer, which is opened at the first report

    def init(params: Params) -> None:
        return None

    def update(state: None, progress: Progress) -> tuple[None, bool]:
        if not opened:
            opened.append(writer_class(os.fspath(logdir)))
        for name, metric in columns.items():
            opened[0].add_scalar(name, float(metric(progress)), progress.step)
        opened[0].flush()
        return None, False

    return Callback(init, update)


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return SummaryWriter

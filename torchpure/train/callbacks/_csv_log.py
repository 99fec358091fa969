"""A log as comma-separated values."""

import csv
import io
import os
from collections.abc import Iterable, Mapping

from ._callback import Callback
from ._log_files import LogState, log_file
from ._metrics import Metric


def csv_log(path: str | os.PathLike[str], *, metrics: Mapping[str, Metric] | None = None) -> Callback[LogState]:
    """Write a row at each report: step, loss, mean loss since the last report, and `metrics` by name.

    Each row is in the file when the report ends, so `tail -f` follows it. A new run starts the file anew; a resumed one
    goes on after the last row that it had saved. Folders are made.

    Raises:
        ValueError: a metric is called "step".

    >>> import pathlib, tempfile, torch, torchpure as tp
    >>> path = pathlib.Path(tempfile.mkdtemp(), "log.csv")
    >>> _ = tp.fit(lambda p, x: (p - x) ** 2, [(torch.tensor(1.0),)], params=torch.tensor(0.0), steps=2, every=1,
    ...            optimizer=tp.optim.sgd(0.25), callback=csv_log(path))
    >>> path.read_text().split()
    ['step,loss,mean_loss', '1,1.0,1.0', '2,0.25,0.25']
    """
    return log_file(path, metrics, _row, lambda row: _row(map(repr, row.values())))


def _row(fields: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()

"""A log of one JSON object a line."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ._callback import Callback
from ._log_files import LogState, log_file
from ._metrics import Metric


def jsonl_log(path: str | os.PathLike[str], *, metrics: Mapping[str, Metric] | None = None) -> Callback[LogState]:
    """Write a JSON object at each report, with what `csv_log` writes. Numbers that are not finite are null.

    Raises:
        ValueError: a metric is called "step".

    >>> import pathlib, tempfile, torch, torchpure as tp
    >>> path = pathlib.Path(tempfile.mkdtemp(), "log.jsonl")
    >>> _ = tp.fit(lambda p, x: (p - x) ** 2, [(torch.tensor(1.0),)], params=torch.tensor(0.0), steps=1,
    ...            optimizer=tp.optim.sgd(0.25), callback=jsonl_log(path))
    >>> path.read_text().strip()
    '{"step": 1, "loss": 1.0, "mean_loss": 1.0}'
    """

    def line(row: dict[str, Any]) -> str:
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        return json.dumps(finite, allow_nan=False) + "\n"

    return log_file(path, metrics, lambda names: "", line)

"""Predictions of a saved run for the rows of a data file."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from torchpure.data import read_columns, write_columns
from torchpure.errors import InputError

from ._loaded import LoadedRun, load_run

MAX_ROWS_AT_ONCE = 2**15


def predict(run: str | Path | LoadedRun, source: str | Path, output: str | Path, *, column: str | None = None) -> int:
    """Predict the target for each row of a data file, write inputs and predictions, and return the number of rows.

    Columns are found by name. The column of predictions is named like the target of the run, `y` for an expression.

    Raises:
        InputError: the run or a file cannot be read or written, or an input column is missing.

    >>> import torchpure as tp
    >>> tp.runs.predict("runs/houses-price", "new.csv", "predicted.csv")  # doctest: +SKIP
    250
    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    inputs, name = loaded.description.data.inputs, column or target_name(loaded)
    if name in inputs:
        raise InputError(f"--column: `{name[:40]}` is an input of the model; wanted another name for the predictions")
    x = read_columns(Path(source), inputs)
    predicted = in_parts(loaded.model, x)
    columns = dict(zip(inputs, x.unbind(1), strict=True)) | {name: predicted}
    if Path(output).exists() and Path(output).samefile(source):
        raise InputError(f"--output: {str(output)!r} is the input file; wanted another name")
    write_columns(Path(output), columns)
    return len(x)


def target_name(run: LoadedRun) -> str:
    """Name the target of a run."""
    if run.config.column:
        return run.config.column
    return "y" if "y" not in run.description.data.inputs else "prediction"


@torch.no_grad()
def in_parts(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a model to some rows at a time, so that memory is bounded."""
    return torch.cat([model(rows) for rows in x.split(MAX_ROWS_AT_ONCE)])

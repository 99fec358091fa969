"""Predictions of a saved run for the rows of a data file, in the units of the user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchpure.data import (
    Column,
    Preprocessing,
    Table,
    check_columns,
    encode,
    find_types,
    list_files,
    memory_needed,
    read_blocks,
    read_table,
    write_blocks,
)
from torchpure.errors import InputError

from ._loaded import LoadedRun, load_run
from .fits import in_parts
from .saved import check_output

if TYPE_CHECKING:
    import pyarrow as pa

_MICROSECONDS_PER_DAY = 86_400_000_000
MAX_AT_ONCE = 2**28  # bytes of memory that a file may need to be read at once
BLOCK = 2**16  # rows of a larger file that are in memory at once


def predict(
    run: str | Path | LoadedRun,
    source: str | Path,
    output: str | Path,
    *,
    column: str | None = None,
    force: bool = False,
) -> int:
    """Predict the target for each row of a data file, write inputs and predictions, and return the number of rows.

    Columns are found by name. The columns of predictions are named like the targets of the run, `y` for an expression.
    Classes have a second column, `<name>_probability`. `force` replaces an existing file, but neither the input nor the
    run's data file. A large file is read, and its predictions are written, block by block; `.npz` files are whole.

    Law: the predictions of a row do not depend on the rows beside it, up to rounding.

    Raises:
        InputError: the run or a file cannot be read or written, an input column is missing, or the output exists.

    >>> import torchpure as tp
    >>> tp.runs.predict("runs/houses-price", "new.csv", "predicted.csv")  # doctest: +SKIP
    250
    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    rules = _renamed(loaded.preprocessing, column)
    inputs = [one.name for one in rules.inputs]
    read = [*list_files(Path(source)), *loaded.sources]
    check_output(Path(output), read, force=force)
    rows = 0

    def blocks() -> Iterator[pa.Table]:
        nonlocal rows
        for table in _tables(Path(source), inputs):
            arrow = _with_predictions(loaded.model, rules, table)
            if not rows:  # another program may have written it meanwhile
                check_output(Path(output), read, force=force)
            rows += arrow.num_rows
            yield arrow

    write_blocks(Path(output), blocks())
    return rows


def _tables(source: Path, names: list[str]) -> Iterator[Table]:
    """Yield all rows of a file at once, or block by block if they need much memory."""
    check_columns(source, names)
    if memory_needed(source, len(names)) <= MAX_AT_ONCE:
        yield read_table(source, names)
        return
    yield from read_blocks(source, names, find_types(source, names), BLOCK)


def _with_predictions(model: nn.Module, rules: Preprocessing, table: Table) -> pa.Table:
    arrow, predicted = table.arrow, predict_table(model, rules, table)
    for name, values in zip(predicted.column_names, predicted.columns, strict=True):
        if name in arrow.column_names:
            raise InputError(f"--column: `{name[:40]}` is an input of the model; wanted another name")
        arrow = arrow.append_column(name, values)
    return arrow


def _renamed(rules: Preprocessing, column: str | None) -> Preprocessing:
    """Give the target another name: `column`, or `prediction` if the target of an expression is named like an input."""
    if column is not None and len(rules.targets) > 1:
        raise InputError("--column: the model has several targets, whose names the columns of predictions get")
    inputs = {one.name for one in rules.inputs}
    name = column or ("prediction" if rules.targets[0].name in inputs else rules.targets[0].name)
    first = rules.targets[0].model_copy(update={"name": name})
    return rules.model_copy(update={"targets": (first, *rules.targets[1:])})


def predict_table(model: nn.Module, preprocessing: Preprocessing, table: Table) -> pa.Table:
    """Return a column for each target, with as many rows as the table has.

    For classes it holds the most probable class, and `<name>_probability` its probability.

    Raises:
        InputError: a value of an input column cannot be used.

    ::

        run = load_run("runs/houses")
        predict_table(run.model, run.preprocessing, table)
    """
    import pyarrow as pa

    output = in_parts(model, encode(preprocessing.inputs, table))
    first = preprocessing.targets[0]
    if first.kind == "classes":
        probability, codes = output.softmax(-1).max(-1)
        labels = _labels(first).take(pa.array(codes.numpy()))
        return pa.table({first.name: labels, f"{first.name}_probability": probability.numpy()})
    values = output.unsqueeze(1) if output.ndim == 1 else output
    return pa.table(
        {
            column.name: _in_units(column, values[:, number].contiguous())
            for number, column in enumerate(preprocessing.targets)
        }
    )


def _in_units(column: Column, values: Tensor) -> pa.Array:
    import pyarrow as pa

    if column.kind != "days":
        return pa.array(values.numpy())
    ticks = ((values + column.origin) * _MICROSECONDS_PER_DAY).round().to(torch.int64)
    return pa.array(ticks.numpy()).cast(pa.timestamp("us"))


def _labels(column: Column) -> pa.Array:
    """Return the classes as the file of the training data has them: text, whole numbers or booleans."""
    import pyarrow as pa

    labels = pa.array(column.categories, pa.string())
    types = {"text": pa.string(), "number": pa.int64(), "boolean": pa.bool_()}
    try:
        return labels.cast(types[column.holds])
    except pa.ArrowInvalid:
        return labels

"""Predictions for the rows of a data file, in the units of the user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchpure.data import Column, Preprocessing, Table, encode, read_table

from ._losses import predict
from ._network import Network

if TYPE_CHECKING:
    import pyarrow as pa

_MICROSECONDS_PER_DAY = 86_400_000_000


def predict_file(network: Network, preprocessing: Preprocessing, path: Path) -> pa.Table:
    """Predict for the rows of a file that has the input columns; other columns are not read.

    Raises:
        InputError: the file cannot be read, a column is missing, or a value of it cannot be used.
    """
    return predict_table(network, preprocessing, read_table(path, [column.name for column in preprocessing.inputs]))


def predict_table(network: Network, preprocessing: Preprocessing, table: Table) -> pa.Table:
    """Return a column for each target, with as many rows as the table has.

    For classes it holds the most probable class, and `<name>_probability` its probability.

    Raises:
        InputError: a value of an input column cannot be used.
    """
    import pyarrow as pa

    output = predict(network, encode(preprocessing.inputs, table))
    first = preprocessing.targets[0]
    if first.kind == "classes":
        probability, codes = output.softmax(-1).max(-1)
        labels = pa.array([_label(first, code) for code in codes.tolist()])
        return pa.table({first.name: labels, f"{first.name}_probability": probability.numpy()})
    values = output.unsqueeze(1) if output.ndim == 1 else output
    return pa.table(
        {
            column.name: _in_units(column, values[:, number].contiguous())
            for number, column in enumerate(preprocessing.targets)
        }
    )


def _label(column: Column, code: int) -> Any:
    name = column.categories[code]
    if name is None or column.holds == "text":
        return name
    return name == "true" if column.holds == "boolean" else int(name)


def _in_units(column: Column, values: Tensor) -> pa.Array:
    import pyarrow as pa

    if column.kind != "days":
        return pa.array(values.numpy())
    ticks = ((values + column.origin) * _MICROSECONDS_PER_DAY).round().to(torch.int64)
    return pa.array(ticks.numpy()).cast(pa.timestamp("us"))

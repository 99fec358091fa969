"""The files of a sweep's results: a row a member as JSON lines and Parquet, and the curves."""

import io
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

Row = dict[str, Any]


class Curves(NamedTuple):
    """The losses of members at some steps: those of training before the update, those of validation after it."""

    index: np.ndarray  # int64, (members,)
    steps: np.ndarray  # int64, (report steps,), from 1
    losses: np.ndarray  # float64, (members, report steps); NaN where a member has none


def join_curves(parts: Sequence[tuple[Sequence[int], Sequence[int], Tensor]]) -> Curves:
    """Join the curves of groups: (indices of the members, report steps, losses by report step and member)."""
    steps = sorted({step for _, numbers, _ in parts for step in numbers})
    index = sorted(number for indices, _, _ in parts for number in indices)
    losses = np.full((len(index), len(steps)), math.nan)
    for indices, numbers, values in parts:
        rows, columns = np.searchsorted(index, indices), np.searchsorted(steps, numbers)
        losses[np.ix_(rows, columns)] = values.T.numpy()
    return Curves(np.array(index, dtype=np.int64), np.array(steps, dtype=np.int64), losses)


def json_lines(rows: Sequence[Row]) -> bytes:
    """Write rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: Sequence[Row]) -> bytes | None:
    """Write rows as Parquet; None without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    buffer = io.BytesIO()
    schema = pa.schema([(name, pa.type_for_alias(_type(rows, name))) for name in (rows[0] if rows else ())])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), buffer)
    return buffer.getvalue()


def _type(rows: Sequence[Row], name: str) -> str:
    """Name the type of a column; of one without values it is that of losses."""
    values = [row[name] for row in rows if row[name] is not None]
    if values and all(isinstance(value, str) for value in values):
        return "string"
    if values and all(isinstance(value, int) for value in values):
        return "int64" if max(values) < 2**63 else "uint64"
    return "float64"


def npz(curves: Curves, validation: Curves | None) -> bytes:
    """Write curves as .npz."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = curves._asdict()
    if validation is not None:
        arrays |= {"validation_steps": validation.steps, "validation_losses": validation.losses}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def curve_columns(curves: Curves, validation: Curves | None) -> dict[str, np.ndarray]:
    """Return the curves as columns, a row for each member and step: index, step, loss and validation_loss."""
    steps = curves.steps if validation is None else np.union1d(curves.steps, validation.steps)
    shape = (len(curves.index), len(steps))
    columns = {"index": np.repeat(curves.index, len(steps)), "step": np.tile(steps, len(curves.index))}
    for name, one in (("loss", curves), ("validation_loss", validation)):
        if one is not None:
            values = np.full(shape, math.nan)
            values[np.ix_(np.searchsorted(curves.index, one.index), np.searchsorted(steps, one.steps))] = one.losses
            columns[name] = values.ravel()
    known = np.logical_or.reduce([np.isfinite(columns[name]) for name in columns if name.endswith("loss")])
    return {name: values[known] for name, values in columns.items()}


def curve_parquet(columns: dict[str, np.ndarray]) -> bytes | None:
    """Write the columns of curves as Parquet, where a loss that is not known is null; None without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    buffer = io.BytesIO()
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    pq.write_table(table, buffer, use_dictionary=["index", "step"])  # losses differ
    return buffer.getvalue()


def curve_lines(columns: dict[str, np.ndarray]) -> bytes:
    """Write the columns of curves as JSON lines."""
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    named = (zip(columns, row, strict=True) for row in rows)
    return json_lines([{name: value for name, value in row if value == value} for row in named])

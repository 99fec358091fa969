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
    """The training losses of members at their report steps."""

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


def npz(curves: Curves) -> bytes:
    """Write curves as .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **curves._asdict())
    return buffer.getvalue()

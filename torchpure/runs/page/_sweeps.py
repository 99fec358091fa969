"""A sweep on a page: its table, the lowest loss first, and the loss over each varied number."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ._figure import LOG_RANGE, Figure, Series
from ._tables import sortable
from ._text import escaped

MAX_ROWS = 2000  # a browser shows no more at once without delay
MAX_FIGURES = 8


def sweep_table(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], key: str) -> str:
    """Return the table of a sweep; of a large one, the rows with the lowest losses."""
    loss = _loss_column(columns)
    shown = rows if loss is None else sorted(rows, key=lambda row: _order(row[loss]))
    note = f"<p>The first {MAX_ROWS} of {len(rows)} runs are listed.</p>" if len(rows) > MAX_ROWS else ""
    order = "" if loss is None else f", by {columns[loss]}"
    caption = f"Sweep {name}: {len(rows)} runs{order}; a button in a header sorts the table"
    return f"<h3>{escaped(name)}</h3>{note}{sortable(caption, columns, shown[:MAX_ROWS], key)}"


def sweep_figures(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[Figure]:
    """Yield the loss over each number that varies."""
    loss = _loss_column(columns)
    if loss is None:
        return
    losses = _numbers(rows, loss)
    others = [place for place, column in enumerate(columns) if "loss" not in column.lower()]
    varied = [(place, values) for place in others if np.ptp(values := _numbers(rows, place)) > 0]  # not for NaN
    for place, x in varied[:MAX_FIGURES]:
        series = [Series(f"runs of {name}", x, losses, 0, 0, "markers")]
        log = bool(x.min() > 0 and x.max() / x.min() > LOG_RANGE)
        yield Figure(f"{columns[loss]} over {columns[place]}: {name}", columns[place], columns[loss], series, log_x=log)


def sweep_curves(name: str, curves: Mapping[str, np.ndarray]) -> Iterator[Figure]:
    """Yield the curves of the members that are given: training losses, and validation losses if there are some.

    `curves` has a row for each member and step: index, step, loss and validation_loss, NaN where a loss is not known.
    """
    members = [*dict.fromkeys(curves["index"].tolist())] if "index" in curves else []
    for column, title in (("loss", "training loss"), ("validation_loss", "validation loss")):
        series = []
        for place, member in enumerate(members if column in curves else []):
            kept = (curves["index"] == member) & np.isfinite(curves[column])
            series.append(Series(f"member {member}", curves["step"][kept], curves[column][kept], place))
        if series:
            yield Figure(f"{title} of the best members: {name}", "step", title, series)


def _loss_column(columns: Sequence[str]) -> int | None:
    for wanted in ("validation_loss", "test_loss", "loss", "train_loss"):
        if wanted in columns:
            return columns.index(wanted)
    return next((place for place, column in enumerate(columns) if "loss" in column.lower()), None)


def _numbers(rows: Sequence[Sequence[object]], place: int) -> np.ndarray:
    return np.array([_number(row[place]) for row in rows], dtype=np.float64)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _order(value: object) -> tuple[bool, float]:
    number = _number(value)
    return math.isnan(number), 0.0 if math.isnan(number) else number

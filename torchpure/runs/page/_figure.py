"""A chart with its text: what plotly draws, a sentence for those who do not see it, and a table of its numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ._tables import table
from ._text import escaped, json_number, label, number

MAX_POINTS = 2000  # of one series: more would hide each other
MAX_LISTED = 12  # points of one series in the table
LOG_RANGE = 50.0  # positive numbers of a larger range are drawn on a log scale


class Series(NamedTuple):
    """One line or one set of points."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int  # index of a colour of the page
    style: int = 0  # index of a dash or a marker
    mode: str = "lines"  # or markers


class Figure(NamedTuple):
    """One chart."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    equal: bool = False  # both axes have the same scale
    log_x: bool = False


def chart(key: str, figure: Figure) -> dict[str, Any]:
    """Return what the page's script needs to draw a figure."""
    return {
        "key": key,
        "x": label(figure.x),
        "y": label(figure.y),
        "equal": figure.equal,
        "logX": figure.log_x,
        "logY": not figure.equal and _wide([part.y for part in figure.series]),
        "series": [
            {
                "name": label(part.name),
                "x": [json_number(value) for value in part.x.tolist()],
                "y": [json_number(value) for value in part.y.tolist()],
                "color": part.color,
                "style": part.style,
                "mode": part.mode,
            }
            for part in map(thinned, figure.series)
        ],
    }


def figure_html(key: str, figure: Figure) -> str:
    """Return the HTML of a figure: a place for the chart, buttons, a summary and a table of numbers."""
    title = escaped(figure.title)
    buttons = "".join(
        f'<button type="button" data-chart="{key}" data-action="{action}" aria-label="{text}: {title}">{text}</button>'
        for action, text in (("in", "Zoom in"), ("out", "Zoom out"), ("reset", "Reset"), ("log", "Log scale"))
    )
    numbers = table(f"Numbers of the chart: {figure.title}", ["series", figure.x, figure.y], _listed(figure))
    summary = "; ".join(escaped(_summary(part)) for part in figure.series[:MAX_LISTED])
    return (
        f'<figure aria-labelledby="{key}-title"><h3 id="{key}-title">{title}</h3>'
        f'<div class="chart" id="{key}" tabindex="0" role="group" aria-roledescription="chart" '
        f'aria-labelledby="{key}-title" aria-describedby="{key}-summary keys"></div>'
        f'<div class="buttons">{buttons}</div>'
        f'<figcaption id="{key}-summary">{summary}</figcaption>'
        f"<details><summary>Numbers</summary>{numbers}</details></figure>"
    )


def thinned(series: Series) -> Series:
    """Keep at most 2,000 points: of lines the lowest and the highest of each part, so that no peak is lost."""
    size = len(series.y)
    if size <= MAX_POINTS:
        return series
    if series.mode == "markers":
        chosen = np.linspace(0, size - 1, MAX_POINTS).astype(int)
    else:
        parts = np.array_split(np.arange(size), MAX_POINTS // 2 - 1)
        lowest = [part[np.argmin(np.where(np.isfinite(y), y, np.inf))] for part in parts for y in [series.y[part]]]
        highest = [part[np.argmax(np.where(np.isfinite(y), y, -np.inf))] for part in parts for y in [series.y[part]]]
        chosen = np.unique([0, *lowest, *highest, size - 1])
    return series._replace(x=series.x[chosen], y=series.y[chosen])


def _wide(values: Sequence[np.ndarray]) -> bool:
    finite = np.concatenate([part[np.isfinite(part)] for part in values] or [np.zeros(0)])
    return bool(len(finite) > 0 and finite.min() > 0 and finite.max() / finite.min() > LOG_RANGE)


def _summary(series: Series) -> str:
    finite = np.isfinite(series.y)
    x, y = series.x[finite], series.y[finite]
    if not len(y):
        return f"{series.name}: no finite numbers"
    if len(y) == 1:
        return f"{series.name}: {number(y[0].item())}"
    if series.mode == "markers":
        return f"{series.name}: {len(y)} points from {number(y.min().item())} to {number(y.max().item())}"
    lowest = int(y.argmin())
    return (
        f"{series.name}: from {number(y[0].item())} to {number(y[-1].item())}, "
        f"lowest {number(y[lowest].item())} at {number(x[lowest].item())}"
    )


def _listed(figure: Figure) -> list[list[object]]:
    rows: list[list[object]] = []
    for part in figure.series:
        chosen = np.unique(np.linspace(0, len(part.y) - 1, min(len(part.y), MAX_LISTED)).astype(int))
        rows += [[part.name, part.x[index].item(), part.y[index].item()] for index in chosen]
    return rows

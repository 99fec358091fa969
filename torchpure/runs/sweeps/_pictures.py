"""Pictures of a sweep: curves, a heat map over two numbers, parallel coordinates."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._results import Curves, Row
from ._space import Axis

if TYPE_CHECKING:  # matplotlib takes a part of a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 1000  # more would only hide each other
HIGHEST, LOWEST = 1e250, 1e-250
COLORS = "viridis"  # the least loss is dark


def draw_sweep(folder: Path, axes: Sequence[Axis], rows: Sequence[Row], curves: Curves) -> None:
    """Draw the pictures that the space has; members whose loss is not finite are left out."""
    kept = [row for row in rows if row["test_loss"] is not None]
    if not kept:
        return
    level = _levels(kept)
    varying = [axis for axis in axes if len({row[axis.name] for row in kept}) > 1]
    _draw(folder / "curves.png", lambda figure: _curves(figure, kept, curves, level))
    if len(varying) == 2 and all(axis.is_number() for axis in varying):
        _draw(folder / "losses.png", lambda figure: _heat_map(figure, varying, kept, level))
    if len(varying) > 1:
        _draw(folder / "coordinates.png", lambda figure: _coordinates(figure, varying, kept, level))


def _levels(rows: Sequence[Row]) -> np.ndarray:
    """Return the decimal logarithms of the test losses."""
    return np.log10(np.clip([row["test_loss"] for row in rows], LOWEST, HIGHEST))


def _draw(path: Path, draw: Callable[["Figure"], None]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    draw(figure)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 1})
    temporary.replace(path)


def _lines(figure: "Figure", axes: "Axes", segments: Sequence[Any], level: np.ndarray) -> None:
    """Draw lines as one collection, the best on top, with the colors of their losses."""
    from matplotlib.collections import LineCollection

    order = np.argsort(-level)[:: max(1, -(-len(level) // MAX_LINES))]
    order = np.unique(np.append(order, np.argmin(level)))
    order = order[np.argsort(-level[order], kind="stable")]
    lines = LineCollection([segments[i] for i in order], array=level[order], cmap=COLORS, linewidths=0.8, alpha=0.7)
    axes.add_collection(lines)
    figure.colorbar(lines, ax=axes, label="log10 of the test loss")


def _curves(figure: "Figure", rows: Sequence[Row], curves: Curves, level: np.ndarray) -> None:
    axes = figure.add_subplot()
    place = np.searchsorted(curves.index, [row["index"] for row in rows])
    losses = np.clip(curves.losses[place], LOWEST, HIGHEST)
    segments = [np.column_stack([curves.steps, values])[np.isfinite(values)] for values in losses]
    _lines(figure, axes, segments, level)
    axes.set_yscale("log")
    axes.autoscale()
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")


def _heat_map(figure: "Figure", varying: Sequence[Axis], rows: Sequence[Row], level: np.ndarray) -> None:
    first, second = varying
    axes = figure.add_subplot()
    x, y = (np.array([row[axis.name] for row in rows], dtype=float) for axis in varying)
    xs, ys = np.unique(x), np.unique(y)
    if len(xs) * len(ys) <= 4 * len(rows):  # a grid; others are points
        grid = np.full((len(ys), len(xs)), math.nan)
        grid[np.searchsorted(ys, y), np.searchsorted(xs, x)] = level
        drawn: Any = axes.pcolormesh(_edges(xs), _edges(ys), grid, cmap=COLORS)
    else:
        drawn = axes.scatter(x, y, c=level, cmap=COLORS, s=14)
    for name, axis, values in (("x", first, xs), ("y", second, ys)):
        axes.set(**{f"{name}label": axis.name, f"{name}scale": "log" if _is_log(values) else "linear"})
    figure.colorbar(drawn, ax=axes, label="log10 of the test loss")


def _is_log(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() >= 50)


def _edges(values: np.ndarray) -> np.ndarray:
    """Return the bounds of cells around sorted values."""
    if _is_log(values):
        return 10 ** _middle(np.log10(values))
    return _middle(values)


def _middle(values: np.ndarray) -> np.ndarray:
    inner = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - inner[0]], inner, [2 * values[-1] - inner[-1]]])


def _coordinates(figure: "Figure", varying: Sequence[Axis], rows: Sequence[Row], level: np.ndarray) -> None:
    axes = figure.add_subplot()
    columns = []
    for position, axis in enumerate(varying):
        values, ticks = _scaled([row[axis.name] for row in rows], number=axis.is_number())
        columns.append(values)
        axes.axvline(position, color="#9aa0a6", linewidth=0.8)
        for height, text in ticks:
            axes.annotate(text, (position, height), fontsize=8, xytext=(3, 2), textcoords="offset points")
    columns.append(_unit(level))
    segments = np.stack([np.tile(np.arange(len(columns), dtype=float), (len(rows), 1)), np.stack(columns, 1)], 2)
    _lines(figure, axes, [*segments], level)
    axes.set_xlim(-0.1, len(columns) - 0.9)
    axes.set_ylim(-0.05, 1.1)
    axes.set_xticks(range(len(columns)), [*(axis.name for axis in varying), "test loss"])
    axes.set_yticks([])


def _scaled(values: Sequence[Any], *, number: bool) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Map values to heights from 0 to 1, with the texts of some of them."""
    if not number:
        names = [*dict.fromkeys(values)]
        heights = np.linspace(0, 1, len(names)) if len(names) > 1 else np.array([0.5])
        named = zip(heights.tolist(), names, strict=True)
        return heights[[names.index(value) for value in values]], [(height, str(name)[:20]) for height, name in named]
    array = np.array(values, dtype=float)
    low, high = array.min(), array.max()
    scaled = _unit(np.log10(array)) if _is_log(array) else _unit(array)
    return scaled, [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]


def _unit(values: np.ndarray) -> np.ndarray:
    span = np.ptp(values)
    return (values - values.min()) / span if span > 0 else np.full(len(values), 0.5)

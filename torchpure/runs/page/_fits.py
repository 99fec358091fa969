"""Charts of a fit: model and points over the input, predicted against true values, and residuals."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ._figure import Figure, Series

MAX_CLASSES = 50


class Points(NamedTuple):
    """Points of one kind, with the predictions of the model."""

    name: str  # training or test
    x: np.ndarray  # (rows,), the input if there is one; else empty
    true: np.ndarray  # (rows,)
    predicted: np.ndarray  # (rows,)


class Fitted(NamedTuple):
    """A model and its points."""

    target: str
    input: str | None  # the name of the only input
    points: tuple[Points, ...]
    grid: np.ndarray  # values of the only input, where the curves are drawn
    curve: np.ndarray  # the model at these
    truth: np.ndarray | None  # the expression at these


class Confusion(NamedTuple):
    """How many test points of each true class (rows) were predicted as each class (columns)."""

    classes: Sequence[object]
    counts: list[list[int]]


def confusion(value: object, classes: Sequence[object]) -> Confusion | None:
    """Take a confusion matrix from a run's result; None if there is none, or it is too large for a page.

    >>> confusion([[3, 1], [0, 2]], "ab"), confusion([[1, "x"]], "ab")
    (Confusion(classes='ab', counts=[[3, 1], [0, 2]]), None)
    """
    if not isinstance(value, list) or not 1 <= len(value) == len(classes) <= MAX_CLASSES:
        return None
    square = all(isinstance(row, list) and len(row) == len(value) for row in value)
    if not square or not all(type(count) is int for row in value for count in row):
        return None
    return Confusion(classes, value)


def fit_figures(run: str, fitted: Fitted) -> Iterator[Figure]:
    """Yield the fit of a run and its residuals."""
    if fitted.input is None:
        yield _agreement(run, fitted)
    else:
        yield _curve(run, fitted, fitted.input)
    series = [
        Series(f"{part.name} points", part.predicted, part.true - part.predicted, 1 + place, place, "markers")
        for place, part in enumerate(fitted.points)
    ]
    yield Figure(f"Residuals: {run}", f"predicted {fitted.target}", "true minus predicted", series)


def residual_rows(fitted: Fitted) -> dict[str, float]:
    """Return the root mean squared and the largest residual of each kind of points."""
    rows: dict[str, float] = {}
    for part in fitted.points:
        residuals = part.true - part.predicted
        rows[f"{part.name}: root mean squared error"] = float(np.sqrt(np.mean(residuals**2)))
        rows[f"{part.name}: largest error"] = float(np.abs(residuals).max())
    return rows


def _curve(run: str, fitted: Fitted, name: str) -> Figure:
    series = [] if fitted.truth is None else [Series("target", fitted.grid, fitted.truth, 3, 1)]
    series.append(Series("model", fitted.grid, fitted.curve, 0))
    series += [
        Series(f"{part.name} points", part.x, part.true, 1 + place, place, "markers")
        for place, part in enumerate(fitted.points)
    ]
    return Figure(f"Fit: {run}", name, fitted.target, series)


def _agreement(run: str, fitted: Fitted) -> Figure:
    low = min(float(part.true.min()) for part in fitted.points)
    high = max(float(part.true.max()) for part in fitted.points)
    ends = np.array([low, high])
    series = [Series("perfect agreement", ends, ends, 3, 1)]
    series += [
        Series(f"{part.name} points", part.true, part.predicted, 1 + place, place, "markers")
        for place, part in enumerate(fitted.points)
    ]
    return Figure(f"Fit: {run}", f"true {fitted.target}", f"predicted {fitted.target}", series, equal=True)

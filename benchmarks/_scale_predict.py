"""Constants of links from measured collectives, and what they predict: other sizes, more processes, steps."""

import math
import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from ._scale_measure import SIZES, WIDTHS, Measured
from .simulator import OURS, TORCHS, Link, data_parallel_seconds, fit_nonnegative, room

FITTED = SIZES[::2]  # the sizes between them are predicted
COPIED: dict[str, dict[str, Callable[[int, int], float]]] = {  # bytes within the memory of a process
    "torch": {"all_gather": lambda size, ranks: size * ranks, "all_to_all": lambda size, ranks: size / ranks},
    "tp": {"all_gather": lambda size, ranks: size * ranks},  # the others copy their tensor once
}
GRADIENT_BYTES = 4 * sum(rows * columns for rows, columns in pairwise(WIDTHS))


class Constants(NamedTuple):
    """What is fitted for a number of processes."""

    link: Link
    torchs: float  # seconds of a call of torch's
    ours: float  # seconds of an exchange of ours: its round, and the data if they do not fit into that
    copy: float  # seconds of a byte that a process copies within its memory


class Row(NamedTuple):
    """A prediction, and what was measured."""

    what: str
    processes: int
    size: int  # bytes of a collective, or rows of a step
    predicted: float  # seconds
    measured: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def _features(name: str, size: int, ranks: int) -> list[float]:
    """Return messages, sent, reduced and copied bytes, calls of torch's, exchanges of ours."""
    owner, _, collective = name.partition(" ")
    formula = (OURS if owner == "tp" else TORCHS)[collective]
    copied = COPIED[owner].get(collective, lambda size, ranks: size * (owner == "tp"))(size, ranks)
    exchanges = (1.0 if ranks == 1 or size <= room(ranks) else 2.0) if owner == "tp" else 0.0
    return [*formula(size, ranks), copied, float(owner != "tp"), exchanges]


def _collectives(measured: Measured, sizes: tuple[int, ...]) -> Iterator[tuple[str, int, float]]:
    for name, values in measured.items():
        if name.startswith(("torch ", "tp ")):
            for size in sizes:
                yield name, size, values[str(size)]


def fit(measured: Measured, ranks: int) -> Constants:
    """Fit the constants of so many processes to the sizes `FITTED` of all collectives at once."""
    found = [*_collectives(measured, FITTED)]
    rows = [_features(name, size, ranks) for name, size, _ in found]
    alpha, beta, gamma, copy, torchs, ours = fit_nonnegative(rows, [value for *_, value in found])
    return Constants(Link(alpha, beta, gamma), torchs, ours, copy)


def predict(name: str, size: int, ranks: int, constants: Constants) -> float:
    """Return the seconds of a collective."""
    weights = [*constants.link, constants.copy, constants.torchs, constants.ours]
    return sum(feature * weight for feature, weight in zip(_features(name, size, ranks), weights, strict=True))


def compare(measured: Measured, ranks: int, constants: Constants, sizes: tuple[int, ...]) -> list[Row]:
    """Return predictions of collectives beside what was measured."""
    return [
        Row(name, ranks, size, predict(name, size, ranks, constants), value)
        for name, size, value in _collectives(measured, sizes)
    ]


def slower(constants: Constants, factor: float) -> Constants:
    """Return the constants of processes that share their cores with so many times as many others."""
    link = Link(*(factor * value for value in constants.link))
    return Constants(link, *(factor * value for value in constants[1:]))


def compare_steps(of: dict[int, Measured], fitted: dict[int, Constants], cores: int) -> list[Row]:
    """Return predictions of data-parallel steps: products from one process, sums from the fit of the collectives."""
    (few, first), (many, second) = ((int(rows), value) for rows, value in of[1]["step"].items())
    per_row = max(0.0, (second - first) / (many - few))
    fixed = max(0.0, first - per_row * few)
    return [
        Row("step", ranks, rows, _step(fixed, per_row, rows, ranks, cores, fitted[ranks]), of[ranks]["step"][str(rows)])
        for ranks in of
        if ranks > 1
        for rows in (few, many)
    ]


def _step(fixed: float, per_row: float, rows: int, ranks: int, cores: int, constants: Constants) -> float:
    call = 2 * constants.ours + constants.copy * GRADIENT_BYTES
    return data_parallel_seconds(fixed, per_row, rows, GRADIENT_BYTES, ranks, cores, constants.link, call)


def median_error(rows: list[Row]) -> float:
    """Return the median of |log ratio| as a factor: 1.2 says that half of the predictions are within 1.2 times."""
    return math.exp(statistics.median(abs(math.log(row.ratio)) for row in rows))

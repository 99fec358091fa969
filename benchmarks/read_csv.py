"""Time to read a CSV file of 200 MB: into Arrow columns, and on to the features of a fit.

A file of 1 GB takes five times as long in each program; 200 MB fit on any machine.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as arrow_csv

from torchpure.data import encode, fit_columns, read_table

from ._harness import REPEATS, report

THREADS = 2
BYTES = 200_000_000
NUMBERS, WORDS = 9, 1
FIGURE = "a CSV file of 200 MB"
OURS, ARROW, FEATURES = "torchpure, columns", "pyarrow.csv.read_csv", "torchpure, features"
SETTINGS = {
    OURS: "read_table: types recognised, text checked",
    ARROW: "the default options",
    FEATURES: "read_table, fit_columns and encode to float64",
}


def main() -> None:
    """Read the file in turns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        names = _write(path)
        programs: dict[str, Callable[[], Any]] = {
            OURS: lambda: read_table(path, names),
            ARROW: lambda: arrow_csv.read_csv(path),
            FEATURES: lambda: _features(path, names),
        }
        rows: dict[str, list[float]] = {name: [] for name in programs}
        for call in programs.values():
            call()
        for _ in range(REPEATS):
            for name, call in programs.items():
                start = time.perf_counter()
                call()
                rows[name].append(time.perf_counter() - start)
    report(FIGURE, rows, OURS, {ARROW: 1.1}, SETTINGS, unit="s")


def _features(path: Path, names: list[str]) -> Any:
    table = read_table(path, names)
    return encode(fit_columns(table, names), table)


def _write(path: Path) -> list[str]:
    """Write rows of numbers and one of eight words until the file is large enough."""
    draw = np.random.default_rng(0)
    names = [f"x{number}" for number in range(NUMBERS)] + ["word"]
    lines = [
        ",".join([*map(repr, row), f"w{row[0] * 8:.0f}"]) for row in draw.random((5000, NUMBERS)).round(12).tolist()
    ]
    block = "\n".join(lines) + "\n"
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for _ in range(BYTES // len(block)):
            file.write(block)
    return names

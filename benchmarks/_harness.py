"""Timing several programs that do the same work, so that only their ratios matter.

The programs take turns in short bursts, so that a machine that grows slower does so for all of them. A figure is the
median of five repeats; its spread is their least and greatest.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPEATS = 5
BURSTS = 20
RESULTS = Path(__file__).parent / "results"

Run = Callable[[int], None]  # do the work so many times


def times(programs: dict[str, Run], count: int) -> dict[str, list[float]]:
    """Return microseconds a unit of work, one value a repeat."""
    for run in programs.values():
        run(max(count // 10, 3))
    gc.collect()
    gc.freeze()  # the collector stays on, but does not go through all imported packages in whosever turn it wakes
    rows: dict[str, list[float]] = {name: [] for name in programs}
    burst = max(count // BURSTS, 1)
    for _ in range(REPEATS):
        spent = dict.fromkeys(programs, 0.0)
        for _ in range(BURSTS):
            for name, run in programs.items():
                start = time.perf_counter()
                run(burst)
                spent[name] += time.perf_counter() - start
        for name, seconds in spent.items():
            rows[name].append(seconds / (burst * BURSTS) * 1e6)
    return rows


def report(
    figure: str,
    rows: dict[str, list[float]],
    ours: str,
    bars: dict[str, float],
    settings: dict[str, str],
) -> None:
    """Print a table of times and ratios, and save it as JSON; `bars` holds the ratio to meet for a peer."""
    table = Table(title=figure, title_justify="left")
    for column in ("program", "µs (median)", "least … greatest", "ours / it", "bar", "settings"):
        table.add_column(column, justify="right" if column.startswith(("µs", "ours", "bar")) else "left")
    saved = {}
    for name, values in rows.items():
        ratios = [mine / its for mine, its in zip(rows[ours], values, strict=True)]
        ratio = statistics.median(ratios)
        saved[name] = {"microseconds": values, "ratios": ratios, "ratio": ratio, "settings": settings.get(name, "")}
        bar = f"≤ {bars[name]}: {'met' if ratio <= bars[name] else 'missed'}" if name in bars else ""
        spread = f"{min(values):.1f} … {max(values):.1f}"
        shown = "" if name == ours else f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        table.add_row(name, f"{statistics.median(values):.1f}", spread, shown, bar, settings.get(name, ""))
    Console(width=150).print(table)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{figure.split(':')[0].replace(' ', '_')}.json"
    path.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")

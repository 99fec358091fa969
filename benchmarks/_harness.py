"""Timing of several programs that do the same work. Only the ratios of their times matter.

The programs take turns in short bursts, so that a change of the machine's speed affects all of them. A figure is the
median of five repeats. Its spread is the least and the greatest repeat.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ._results import save

REPEATS = 5
BURSTS = 20
PAUSE = 0.005  # seconds between programs: idle threads of one still spin, and would slow down the next
Values = list[float]  # one for each repeat
Run = Callable[[int], None]  # does the work the given number of times
Program = tuple[Run, Callable[[], float]]  # (run, last loss)


def times(
    programs: Mapping[str, Run], count: int | Mapping[str, int], *, bursts: int = BURSTS, units: int = 1
) -> dict[str, Values]:
    """Return the microseconds for each unit of work, one value for each repeat.

    In each repeat a program does its work `count` times, in bursts that alternate with those of the other programs. The
    work has `units` units, such as the steps of a training run.
    """
    counts = dict.fromkeys(programs, count) if isinstance(count, int) else count
    for name, run in programs.items():
        run(max(counts[name] // 10, min(counts[name], 3)))
    gc.collect()
    gc.freeze()  # the collector stays on, but does not scan the objects of imported packages during a burst
    rows: dict[str, Values] = {name: [] for name in programs}
    sizes = {name: max(counts[name] // bursts, 1) for name in programs}
    for _ in range(REPEATS):
        spent = dict.fromkeys(programs, 0.0)
        for _ in range(bursts):
            for name, run in programs.items():
                time.sleep(PAUSE)
                start = time.perf_counter()
                run(sizes[name])
                spent[name] += time.perf_counter() - start
        for name, seconds in spent.items():
            rows[name].append(seconds / (sizes[name] * bursts * units) * 1e6)
    return rows


def repeat(call: Callable[[], Any]) -> Run:
    """Return a `Run` that repeats this call."""

    def run(count: int) -> None:
        for _ in range(count):
            call()

    return run


def check_same_work(figure: str, losses: dict[str, float], tolerance: float) -> None:
    """Print how close the last losses of the programs are. Exit if one differs from the first by too much."""
    wanted = next(iter(losses.values()))
    far = {name: abs(loss - wanted) / abs(wanted) for name, loss in losses.items()}
    if not all(distance <= tolerance for distance in far.values()):  # False for a NaN
        raise SystemExit(f"{figure}: programs differ by more than {tolerance:g}, relative: losses {losses}")
    print(f"{figure}: all end at loss {wanted:.6g}, within {max(far.values()):.1e} of each other")


def report(
    figure: str,
    rows: dict[str, Values],
    ours: str,
    bars: dict[str, float],
    settings: dict[str, str],
    unit: str = "µs",
) -> None:
    """Print a table of values and ratios, and save it. `bars` has the largest accepted ratio to each peer."""
    table = _table(figure, ("program", f"{unit} (median)", "least … greatest", "ours / it", "bar", "settings"))
    saved = {}
    for name, values in rows.items():
        ratios = [mine / its for mine, its in zip(rows[ours], values, strict=True)]
        ratio, bar = statistics.median(ratios), bars.get(name)
        saved[name] = _summary(values) | {"ratios": ratios, "ratio": ratio, "settings": settings.get(name, "")}
        if bar is not None:
            saved[name] |= {"bar": bar, "met": ratio <= bar}
        shown = "" if name == ours else f"{_short(ratio)} ({_short(min(ratios))}–{_short(max(ratios))})"
        spread = f"{_short(min(values))} … {_short(max(values))}"
        median = _short(statistics.median(values))
        table.add_row(name, median, spread, shown, _verdict(ratio, bar), settings.get(name, ""))
    Console(width=150).print(table)
    save(figure, unit, saved)


def report_limits(
    figure: str, rows: dict[str, Values], limits: dict[str, float], settings: dict[str, str], unit: str = "s"
) -> None:
    """Print a table of values and their limits, and save it."""
    table = _table(figure, ("program", f"{unit} (median)", "least … greatest", "bar", "settings"))
    saved = {}
    for name, values in rows.items():
        median, limit = statistics.median(values), limits.get(name)
        saved[name] = _summary(values) | {"settings": settings.get(name, "")}
        if limit is not None:
            saved[name] |= {"limit": limit, "met": median <= limit}
        spread = f"{_short(min(values))} … {_short(max(values))}"
        table.add_row(name, _short(median), spread, _verdict(median, limit), settings.get(name, ""))
    Console(width=150).print(table)
    save(figure, unit, saved)


def report_cases(figure: str, cases: dict[str, dict[str, Values]], ours: str, its: str, bar: float) -> None:
    """Print a table that compares two programs in several cases, one row for each case, and save it."""
    table = _table(figure, ("case", f"{ours}, µs", f"{its}, µs", "ours / it", "bar"))
    saved = {}
    for case, rows in cases.items():
        ratios = [mine / other for mine, other in zip(rows[ours], rows[its], strict=True)]
        ratio = statistics.median(ratios)
        saved[case] = _summary(ratios) | {"microseconds": rows, "bar": bar, "met": ratio <= bar}
        medians = [_short(statistics.median(rows[name])) for name in (ours, its)]
        shown = f"{_short(ratio)} ({_short(min(ratios))}–{_short(max(ratios))})"
        table.add_row(case, *medians, shown, _verdict(ratio, bar))
    Console(width=150).print(table)
    save(figure, f"{ours} / {its}", saved, line=bar)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("program", "settings", "case") else "right")
    return table


def _summary(values: Values) -> dict[str, Any]:
    return {"values": values, "median": statistics.median(values), "least": min(values), "greatest": max(values)}


def _verdict(value: float, bar: float | None) -> str:
    return "" if bar is None else f"≤ {bar:g}: {'met' if value <= bar else 'missed'}"


def _short(value: float) -> str:
    """Format a number with at least three digits and no exponent."""
    digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"

"""A model of many devices, tested: constants fitted on 1, 2 and 4 processes, predictions beside measurements, tables.

`python -m benchmarks scale_model` measures and prints. `python -m benchmarks.scale_model page` writes the tables into
docs/scale-model.md too, and with `saved` it takes the last measurements.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from . import _scale_measure as measure
from . import _scale_predict as predict
from ._results import RESULTS, machine
from ._scale_measure import Measured
from ._scale_predict import Constants, Row
from ._scale_tables import TABLES, markdown, short
from .simulator import Scheduler, Worker, simulate_sweep

THREADS = 2
PROCESSES = (1, 2, 4)
SLEEPS = {1: [0.05] * 20, 2: [0.05] * 40, 4: [0.05, 0.1, 0.15] * 16}  # workers -> tasks
NOTHING = [0.0] * 300  # tasks that show what a task costs
SAVED = RESULTS / "scale_model.json"
PAGE = Path(__file__).parents[1] / "docs" / "scale-model.md"


def main() -> None:
    """Measure, fit, compare, and print; `saved`: take the last measurements; `page`: write the page too."""
    saved = json.loads(SAVED.read_text(encoding="utf-8")) if "saved" in sys.argv else measured()
    tables = measured_tables(saved) | {name: table() for name, table in TABLES.items()}
    for name, table in tables.items():
        print(f"\n{name}\n\n{table}")
    if "page" in sys.argv:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")


def measured() -> dict[str, Any]:
    """Measure, and write a file."""
    load = os.getloadavg()[0]
    of = {str(count): measure.processes(count) for count in PROCESSES}
    a_task = measure.tasks(1, NOTHING) / len(NOTHING)
    slept = {str(workers): measure.tasks(workers, lengths) for workers, lengths in SLEEPS.items()}
    saved = {"machine": machine(), "load": load, "measured": of, "task": a_task, "slept": slept}
    SAVED.parent.mkdir(exist_ok=True)
    SAVED.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    return saved


def measured_tables(saved: dict[str, Any]) -> dict[str, str]:
    """Return the tables of measurements and of what was predicted for them."""
    of = {int(count): found for count, found in saved["measured"].items()}
    fitted = {count: predict.fit(found, count) for count, found in of.items()}
    about, load = saved["machine"], saved["load"]
    cores = about["cores used"]
    return {
        "machine": f"{about['cpu']}, {cores} cores, torch {about['versions']['torch']}; load {load:.1f} at the start.",
        "constants": constants(fitted),
        "sizes": sizes(of, fitted, cores),
        "predicted steps": rows_of(predict.compare_steps(of, fitted, cores), "rows"),
        "predicted tasks": tasks(saved["task"], {int(count): value for count, value in saved["slept"].items()}),
    }


def page(text: str, tables: dict[str, str]) -> str:
    """Return the page with these tables between their marks.

    Raises:
        ValueError: the page lacks the marks of a table.
    """
    for name, table in tables.items():
        mark = re.compile(rf"(<!-- {name} -->\n\n).*?(\n\n<!-- end of {name} -->)", re.DOTALL)
        if not mark.search(text):
            raise ValueError(f"scale_model: docs/scale-model.md lacks <!-- {name} --> and <!-- end of {name} -->")
        text = mark.sub(lambda found, table=table: f"{found[1]}{table}{found[2]}", text)
    return text


def constants(fitted: dict[int, Constants]) -> str:
    """Return the table of fitted constants."""
    head = ["processes", "α, µs", "β, ns/KB", "γ, ns/KB", "copy, ns/KB", "call of torch, µs", "exchange of ours, µs"]
    rows = []
    for count, (link, torchs, ours, copy) in fitted.items():
        of_bytes = [short(1e12 * value) for value in (link.per_byte, link.per_reduced_byte, copy)]
        rows.append([str(count), short(1e6 * link.latency), *of_bytes, short(1e6 * torchs), short(1e6 * ours)])
    return markdown(head, rows)


def sizes(of: dict[int, Measured], fitted: dict[int, Constants], cores: int) -> str:
    """Return how far predictions of collectives are from what was measured: fitted sizes, others, other processes."""
    others = tuple(size for size in measure.SIZES if size not in predict.FITTED)
    shared = max(1.0, PROCESSES[-1] / cores) / max(1.0, 2 / cores)
    cases = [(count, "of the fit", fitted[count], predict.FITTED) for count in PROCESSES]
    cases += [(count, "others", fitted[count], others) for count in PROCESSES]
    cases += [(PROCESSES[-1], "all, constants of 2 processes", predict.slower(fitted[2], shared), measure.SIZES)]
    lines = []
    for count, case, found, chosen in cases:
        rows = predict.compare(of[count], count, found, chosen)
        least, most = min(rows, key=_ratio), max(rows, key=_ratio)
        ends = [f"{short(row.ratio)} ({row.what}, {row.size // 1024:,} KiB)" for row in (least, most)]
        lines.append([str(count), case, str(len(rows)), short(predict.median_error(rows)), *ends])
    return markdown(["processes", "sizes", "figures", "median factor", "least predicted / measured", "greatest"], lines)


def _ratio(row: Row) -> float:
    return row.ratio


def rows_of(rows: list[Row], unit: str) -> str:
    """Return predictions, measurements and ratios, a line each."""
    lines = [
        [str(row.processes), f"{row.size:,}", short(1e3 * row.predicted), short(1e3 * row.measured), short(row.ratio)]
        for row in rows
    ]
    return markdown(["processes", unit, "predicted, ms", "measured, ms", "ratio"], lines)


def tasks(a_task: float, slept: dict[int, float]) -> str:
    """Return predictions of sleeping tasks on an executor, from what one task costs on one worker."""
    scheduler = Scheduler(hand_out=a_task / 2, take_in=a_task / 2)
    rows = []
    for workers, measured in slept.items():
        ran = simulate_sweep(SLEEPS[workers], [Worker()] * workers, scheduler)
        rows.append(Row("tasks", workers, len(SLEEPS[workers]), ran.seconds, measured))
    return f"A task costs {1e3 * a_task:.2f} ms beyond what it does.\n\n{rows_of(rows, 'tasks')}"


if __name__ == "__main__":
    main()

"""The live table on stderr: the best member, how many ended, speed and time left, a row a group."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from torchpure.runs import SweepProgress

PERIOD = 0.1  # seconds between two updates
MAX_GROUPS = 12  # rows; the newest


@contextmanager
def live_table(*, quiet: bool) -> Iterator[Callable[["SweepProgress"], None]]:
    """Show a table with the progress of a sweep if stderr is a terminal; else show nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.live import Live

    groups: dict[int, tuple[SweepProgress, float, float]] = {}  # by number: newest, its time, the time of its start
    shown = 0.0
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        last = time.monotonic()

        def report(progress: "SweepProgress") -> None:
            nonlocal shown, last
            now = time.monotonic()
            start = groups[progress.group][2] if progress.group in groups else last
            groups[progress.group], last = (progress, now, start), now
            if now - shown >= PERIOD:
                shown = now
                live.update(make_table(groups), refresh=True)

        yield report


def make_table(groups: "dict[int, tuple[SweepProgress, float, float]]") -> "Table":
    """Return the table: a row for each of the newest groups, and what is known of all members below."""
    from rich.table import Table

    newest = groups[max(groups)][0]
    caption = (
        f"best training loss {newest.best:.3e} (member {newest.best_index})\n"
        f"{newest.finished} of {newest.all_members} finished, {newest.failed} failed"
    )
    table = Table(caption=caption, box=None, pad_edge=False, caption_justify="left")
    for name in ("group", "members", "step", "running", "members\u00b7steps/s", "left"):
        table.add_column(name, justify="left" if name == "group" else "right")
    for number in sorted(groups)[-MAX_GROUPS:]:
        table.add_row(*_cells(*groups[number]))
    return table


def _cells(progress: "SweepProgress", now: float, start: float) -> list[Any]:
    from rich.text import Text

    seconds = max(now - start, 1e-9)
    left = seconds / max(progress.step, 1) * (progress.steps - progress.step) if progress.running else 0.0
    minutes, rest = divmod(round(left), 60)
    name = f"{progress.group + 1}/{progress.groups} {progress.label}".strip()
    cells = (
        name,
        str(progress.members),
        f"{progress.step}/{progress.steps}",
        str(progress.running),
        f"{progress.members * progress.step / seconds:.3g}",
        f"{minutes}:{rest:02}",
    )
    return [Text(cell) for cell in cells]

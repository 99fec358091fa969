"""The live line on stderr: step, loss, steps per second, time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PERIOD = 0.1  # seconds between two updates of the line


@contextmanager
def live_line(steps: int, *, quiet: bool) -> Iterator[Callable[[int, float], None]]:
    """Show a line with the progress of the training if stderr is a terminal; else show nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda step, loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    text = "step {task.completed:>{task.fields[width]}}/{task.total}  loss {task.fields[loss]}  {task.fields[speed]}"
    bar = Progress(BarColumn(24), TextColumn(text), console=Console(stderr=True), auto_refresh=False, transient=True)
    with _shown(bar):
        task = bar.add_task("fit", total=steps, loss="-", speed="", width=len(str(steps)))
        start = shown = time.monotonic()

        def report(step: int, loss: float) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < PERIOD and step < steps:
                return
            shown = now
            with suppress(OSError):  # the terminal went away; the run goes on
                bar.update(
                    task, completed=step, loss=f"{loss:.3e}", speed=speed(step, steps, now - start), refresh=True
                )

        yield report


@contextmanager
def _shown(bar: "Progress") -> Iterator[None]:
    bar.start()
    try:
        yield
    finally:
        with suppress(OSError):
            bar.stop()


def speed(step: int, steps: int, seconds: float) -> str:
    """Describe the speed and the time left.

    >>> speed(100, 500, 0.5)
    '200 steps/s  0:02 left'
    """
    rate = step / max(seconds, 1e-9)
    seconds_left = round((steps - step) / rate)
    hours, minutes, rest_seconds = seconds_left // 3600, seconds_left // 60 % 60, seconds_left % 60
    clock = f"{hours}:{minutes:02}:{rest_seconds:02}" if hours else f"{minutes}:{rest_seconds:02}"
    return f"{rate:.3g} steps/s  {clock} left" if rate < 100 else f"{rate:.0f} steps/s  {clock} left"

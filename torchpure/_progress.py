"""Show what takes long: after three seconds a line on the terminal says what is done, in which stage, and since when.

`TORCHPURE_PROGRESS=0` switches it off. Nothing is written where standard error is not a terminal.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DELAY = 3.0  # seconds until the line appears
_THREAD = threading.local()


class _Line:
    """The line of one piece of work. It appears when the work has taken `DELAY` seconds."""

    def __init__(self, what: str, stage: str) -> None:
        self._what, self._stage = what, stage
        self._shown: tuple[Any, Any] | None = None  # the line and its task
        self._lock, self._done = threading.Lock(), False
        self._timer = threading.Timer(DELAY, self._show)
        self._timer.daemon = True
        self._timer.start()

    def stage(self, stage: str) -> None:
        """Name the stage that begins now."""
        with self._lock:
            self._stage = stage
            if self._shown:
                bar, task = self._shown
                bar.update(task, description=self._text())

    def close(self) -> None:
        """Remove the line."""
        self._timer.cancel()
        with self._lock:
            self._done = True
            if self._shown:
                self._shown[0].stop()

    def _show(self) -> None:
        with self._lock:
            if not self._done:
                bar = make_bar()
                self._shown = bar, bar.add_task(self._text(), total=None)
                bar.start()

    def _text(self) -> str:
        return f"{self._what}: {self._stage}"


def make_bar() -> Any:
    """Return a spinner on standard error, which leaves no trace when it stops."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )


def enabled() -> bool:
    """Tell whether lines are wanted."""
    return os.environ.get("TORCHPURE_PROGRESS", "1") != "0" and sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def progress(what: Callable[[], str], stage: str) -> Iterator[None]:
    """Show a line while the block takes long. Inside another such block, nothing more is shown."""
    if getattr(_THREAD, "line", None) or not enabled():
        yield
        return
    _THREAD.line = line = _Line(what(), stage)
    try:
        yield
    finally:
        _THREAD.line = None
        line.close()


def stage(name: str) -> None:
    """Name the stage of the work of this thread, if a line is open."""
    line = getattr(_THREAD, "line", None)
    if line:
        line.stage(name)

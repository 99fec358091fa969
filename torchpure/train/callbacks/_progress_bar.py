"""A line that shows how a run goes."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure._types import Params, ScalarOrSchedule
from torchpure.tree.summaries import shown

from ._callback import Callback
from ._progress import Progress


def progress_bar(
    steps: int | None = None,
    *,
    learning_rate: ScalarOrSchedule | None = None,
    console: Any = None,
    clock: Callable[[], float] = time.monotonic,
) -> Callback[None]:
    """Show the step, the loss, the learning rate, the steps per second and the time left, in one line of a terminal.

    `steps` is the length of the run, without which there is no bar and no time left. `learning_rate` is the number or
    schedule that the optimizer has; that of `inject_hyperparams` is read from its state. `console` is a `rich` console,
    by default that of standard error. Where it is no terminal, each report is a line. `clock` returns seconds.

    >>> from torchpure.train import callbacks
    >>> callbacks.chain(callbacks.progress_bar(1000), callbacks.early_stopping(3)).init({}) is None
    False
    """
    started: list[tuple[float, int]] = []  # the time and the step of the first report of this process

    def update(state: None, progress: Progress) -> tuple[None, bool]:
        out = console or _console()
        now = clock()
        if not started:
            started.append((now, progress.step))
        (first_time, first_step), step = started[0], progress.step
        speed = (step - first_step) / (now - first_time) if now > first_time else None
        parts = [_position(step, steps), f"loss {shown(progress.loss)}", *_rate(learning_rate, progress)]
        if speed is not None:
            parts.append(f"{speed:,.4g} steps/s")
        if speed and steps is not None:
            parts.append(f"{_duration((steps - step) / speed)} left")
        stays = not out.is_terminal or (steps is not None and step >= steps)
        out.print("  ".join(parts), end="\n" if stays else "\r", highlight=False, soft_wrap=True)
        return None, False

    def init(params: Params) -> None:
        started.clear()

    return Callback(init, update)


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _position(step: int, steps: int | None) -> str:
    if steps is None:
        return f"step {step:,}"
    filled = min(24 * step // max(steps, 1), 24)
    return f"{'━' * filled}{'┄' * (24 - filled)}  step {step:,}/{steps:,}"


def _rate(learning_rate: ScalarOrSchedule | None, progress: Progress) -> list[str]:
    if learning_rate is None:
        learning_rate = getattr(progress.opt_state, "hyperparams", {}).get("learning_rate")
    if callable(learning_rate):
        learning_rate = learning_rate(torch.tensor(progress.step - 1.0, dtype=torch.float64))
    if isinstance(learning_rate, Tensor | float | int):
        return [f"rate {shown(learning_rate)}"]
    return []


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

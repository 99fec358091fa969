"""Ctrl-C and SIGTERM: a loop can check for the first one, and clean-up runs to its end whatever comes later."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none


@contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Let the first signal raise KeyboardInterrupt, and ignore later ones; yield a function that returns its number.

    Raises:
        KeyboardInterrupt: a signal came; it is raised at that moment.
    """

    def first(number: int, frame: FrameType | None, received: list[int]) -> None:
        if len(received) == 1:
            raise KeyboardInterrupt

    hook = sys.unraisablehook
    with _handling(first) as received:
        # a destructor or a callback that is interrupted prints a traceback, and goes on
        sys.unraisablehook = lambda error: None if received else hook(error)
        try:
            yield lambda: received[0] if received else 0
        finally:
            sys.unraisablehook = hook


@contextmanager
def catch_signals() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the number of the first signal received, or 0; a second signal interrupts.

    A terminal that goes away is no reason to end.

    Raises:
        KeyboardInterrupt: a second signal came; it is raised at that moment.
    """
    outer: dict[int, Any] = {number: signal.getsignal(number) for number in _NUMBERS}

    def later(number: int, frame: FrameType | None, received: list[int]) -> None:
        if len(received) == 1:
            return
        handler = outer[number]
        if callable(handler):
            handler(number, frame)
        elif len(received) == 2:
            raise KeyboardInterrupt

    with _handling(later) as received, _ignoring(_HANGUP):
        yield lambda: received[0] if received else 0


@contextmanager
def _ignoring(number: int | None) -> Iterator[None]:
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def end_quietly() -> None:
    """Ignore signals from now on, and what destructors raise, because an interrupted program is about to end."""
    sys.unraisablehook = lambda error: None
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handling(handle: Callable[[int, FrameType | None, list[int]], Any]) -> Iterator[list[int]]:
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handle(number, frame, received)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread can set handlers
        return
    old_handlers = {number: signal.signal(number, note) for number in _NUMBERS}
    try:
        yield received
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)

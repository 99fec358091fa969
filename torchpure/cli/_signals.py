"""Catch Ctrl-C and SIGTERM, so that a loop can check for them."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def catch_signals() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the number of the first signal received, or 0; a second signal interrupts.

    Raises:
        KeyboardInterrupt: a second signal came; it is raised at that moment.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    def first_signal() -> int:
        return received[0] if received else 0

    if threading.current_thread() is not threading.main_thread():
        yield first_signal  # only the main thread can set handlers
        return
    old_handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield first_signal
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)

"""Ctrl-C and SIGTERM as a question that a loop can ask."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def listening() -> Iterator[Callable[[], int]]:
    """Yield a function that gives the number of the first signal that came, or 0; a second one ends at once.

    Raises:
        KeyboardInterrupt: a second signal came, wherever the program is then.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    def first() -> int:
        return received[0] if received else 0

    if threading.current_thread() is not threading.main_thread():
        yield first  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The first second of the command: a signal that comes while torch is imported ends it without a traceback."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def is_command() -> bool:
    """Return whether this process is `torchpure` or `python -m torchpure`; others import the package."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 pathlib is not imported yet
    return name.removesuffix(".exe") == "torchpure" or (name == "-m" and "torchpure" in sys.orig_argv[1:4])


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the command at once, until `raise_at_signals`; other programs are left alone.

    An exception would not do: an import that is interrupted may turn it into another, or print it and go on.
    """
    if is_command() and threading.current_thread() is threading.main_thread():
        for number, default in _DEFAULTS.items():
            if signal.getsignal(number) == default:
                signal.signal(number, _end)
    yield  # after the block the command imports more, so its `main` gives the signals back


def raise_at_signals() -> None:
    """Give Ctrl-C and SIGTERM back what they do in Python."""
    if threading.current_thread() is threading.main_thread():
        for number, default in _DEFAULTS.items():
            if signal.getsignal(number) is _end:
                signal.signal(number, default)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"torchpure: {_WORDS[signal.Signals(number)]}; nothing was saved\n".encode())
    os._exit(128 + number)

"""What the commands print: results on stdout, errors of one line on stderr."""

import os
import sys
from typing import Annotated

import typer

from torchpure.errors import InputError

MAX_MESSAGE = 1200
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing file, but never the input or the data of the run.")
]


def print_error(message: str, code: int) -> int:
    """Print one line without control characters on stderr, and return the code."""
    line = printable(" ".join(message.split()))
    short = line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."
    print(f"torchpure: {short}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    r"""Replace control characters, which could change the terminal, by spaces.

    >>> printable("a\x1b[2Jb")
    'a [2Jb'
    """
    return "".join(character if character.isprintable() else " " for character in text)


def print_output(text: str, saved: str = "") -> None:
    """Print on stdout; what its encoding lacks is escaped. `saved` says in an error what was written before.

    Raises:
        InputError: stdout cannot be written.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        close_stdout()
    except OSError as error:
        close_stdout()
        raise InputError(f"stdout: {(error.strerror or str(error)).lower()}{saved and f'; {saved} is saved'}") from None


def close_stdout() -> None:
    """Send later output nowhere: Python would try to write what is left once more at its end, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def format_loss(loss: float | None) -> str:
    """Format a loss; None is one that is not finite."""
    return "not finite" if loss is None else f"{loss:.3e}"

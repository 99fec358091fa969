"""Write a file under another name first, so that nobody sees a half-written one."""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torchpure.errors import InputError

from ._description import NAME as CONFIG
from ._files import reason
from ._metrics import NAME as METRICS
from ._metrics import RESULT
from ._parameters import NAME as PARAMETERS
from ._sweep import LINES, PARQUET

_OF_A_RUN = {CONFIG, METRICS, RESULT, PARAMETERS, LINES, PARQUET}


def refuse_output(output: Path, read: Iterable[Path]) -> None:
    """Refuse to write over a file that is read, or over a file of a run that is read.

    Raises:
        InputError: `output` is such a file.
    """
    if not os.path.exists(output):  # noqa: PTH110 false also for names that no file can have
        return
    for path in filter(Path.exists, read):
        inside = path.is_dir() and output.resolve().is_relative_to(path.resolve()) and output.name in _OF_A_RUN
        if inside or output.samefile(path):
            raise InputError(f"--output: {str(output)[:200]!r} is a file that is read; wanted another name")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` at the end; after an error nothing is left.

    Raises:
        InputError: `path` is a folder or another thing that is no file, or its place cannot be written.
    """
    text = str(path)[:200]
    if "\0" in text or not path.name or (os.path.lexists(path) and not path.is_file()):
        raise InputError(f"--output: {text!r} is no name for a file")
    temporary = path.parent / f".{path.name[:40]}-{secrets.token_hex(4)}.partial"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"--output: {text!r} cannot be written ({reason(error)})") from None
    finally:
        if temporary.exists():
            temporary.unlink()

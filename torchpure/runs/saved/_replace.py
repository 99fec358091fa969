"""Write a file under another name first, so that nobody sees a half-written one; existing files stay unless forced."""

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torchpure.errors import InputError

from ._description import NAME as CONFIG
from ._files import reason
from ._metrics import NAME as METRICS
from ._metrics import RESULT
from ._parameters import NAME as PARAMETERS
from ._sweep import CURVES, LINES, PARQUET

_OF_A_RUN = {CONFIG, METRICS, RESULT, PARAMETERS, LINES, PARQUET, CURVES}


def check_output(output: Path, read: Iterable[Path], *, force: bool) -> None:
    """Check that a file may be written: its name is new, or `force` replaces a regular file that is not read.

    `read` are the files that the command reads, and folders of runs, whose own files are never replaced.

    Raises:
        InputError: it may not.
    """
    text = str(output)[:200]
    try:
        mode = output.lstat().st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:  # a name with null bytes is a ValueError
        raise InputError(f"--output: {text!r} is no name for a file ({reason(error)})") from None
    if not output.name or (mode is not None and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)):
        raise InputError(f"--output: {text!r} is no name for a file")
    if mode is None:
        return
    _refuse_what_is_read(output, read)
    if not force:
        raise InputError(f"--output: {text!r} exists already; wanted the name of a new file, or --force")
    if stat.S_ISLNK(mode):
        raise InputError(f"--output: {text!r} is a link; --force replaces regular files alone; wanted another name")


def _refuse_what_is_read(output: Path, read: Iterable[Path]) -> None:
    if not os.path.exists(output):  # noqa: PTH110 a link that leads nowhere
        return
    for path in filter(Path.exists, read):
        inside = path.is_dir() and output.resolve().is_relative_to(path.resolve()) and output.name in _OF_A_RUN
        if inside or output.samefile(path):
            raise InputError(f"--output: {str(output)[:200]!r} is a file that is read; wanted another name")


@contextmanager
def replaced(path: Path, read: Iterable[Path], *, force: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` at the end; after an error nothing is left.

    Raises:
        InputError: see `check_output`; or the place cannot be written.
    """
    check_output(path, read, force=force)
    temporary = path.parent / f".{path.name[:40]}-{secrets.token_hex(4)}.partial"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        check_output(path, read, force=force)  # another program may have written it meanwhile
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"--output: {str(path)[:200]!r} cannot be written ({reason(error)})") from None
    finally:
        if temporary.exists():
            temporary.unlink()

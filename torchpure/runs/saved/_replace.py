"""Write a file under another name first, so that nobody sees a half-written one; existing files stay unless forced."""

import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torchpure.errors import InputError

from ._files import reason

Kept = Mapping[str, Path | None]  # files that are never replaced, by what they are


def check_output(path: Path, kept: Kept, *, force: bool) -> None:
    """Check that a file may be written: its name is new, or `force` replaces a regular file that is none of `kept`.

    Raises:
        InputError: it may not.
    """
    text = str(path)[:200]
    try:
        mode = path.lstat().st_mode
        same = [what for what, other in kept.items() if other is not None and _is_same(path, other)]
    except FileNotFoundError:
        mode, same = None, []
    except (OSError, ValueError) as error:  # a name with null bytes is a ValueError
        raise InputError(f"--output: {text!r} is no name for a file ({reason(error)})") from None
    if not path.name or (mode is not None and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)):
        raise InputError(f"--output: {text!r} is no name for a file")
    if same:
        raise InputError(f"--output: {text!r} is {same[0]}; wanted another name")
    if mode is not None and not force:
        raise InputError(f"--output: {text!r} exists already; wanted the name of a new file, or --force")
    if mode is not None and stat.S_ISLNK(mode):
        raise InputError(f"--output: {text!r} is a link; --force replaces regular files alone; wanted another name")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # one of them is missing
        return False


@contextmanager
def replaced(path: Path, kept: Kept, *, force: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` at the end; after an error nothing is left.

    Raises:
        InputError: see `check_output`; or the place cannot be written.
    """
    check_output(path, kept, force=force)
    temporary = path.parent / f".{path.name[:40]}-{secrets.token_hex(4)}.partial"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        check_output(path, kept, force=force)  # another program may have written it meanwhile
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"--output: {str(path)[:200]!r} cannot be written ({reason(error)})") from None
    finally:
        if temporary.exists():
            temporary.unlink()

"""Write a file under another name first, so that nobody sees a half-written one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchpure.errors import InputError

from ._files import reason


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

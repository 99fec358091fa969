"""`--config FILE.toml`: options from a file; what the command line gives wins."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchpure.errors import InputError

MAX_BYTES = 2**20
_NOT_IN_FILES = {"target", "config", "out", "as_json", "quiet"}
_FLAGS = {"column": "target", "learning_rate": "lr"}  # other names, as on the command line


def read_options(flags: Mapping[str, Any], path: str | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the options of a command, and what `config.json` says of the file.

    Raises:
        InputError: the file cannot be read, is not TOML, or has an unknown key; the nearest one is suggested.
    """
    options = dict(flags)
    if path is None:
        return options, None
    content = _read(path)
    values = _parse(path, content)
    names = {name for name in flags if name not in _NOT_IN_FILES}
    known = {name: name for name in names} | {_FLAGS[name]: name for name in names if name in _FLAGS}
    for key, value in values.items():
        name = known.get(key.replace("-", "_"))
        if name is None:
            near = difflib.get_close_matches(key[:80].replace("-", "_"), known, n=1)
            guess = f"; did you mean `{near[0]}`?" if near else f"; wanted one of {', '.join(sorted(known))}"
            raise InputError(f"--config: {path}: unknown key `{key[:40]}`{guess}")
        if flags[name] in (None, [], ()):
            options[name] = value
    return options, {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "options": values}


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--config: {path[:200]!r}: {(getattr(error, 'strerror', None) or str(error)).lower()}"
        ) from None
    if len(content) > MAX_BYTES:
        raise InputError(f"--config: {path}: has more than {MAX_BYTES} bytes")
    return content


def _parse(path: str, content: bytes) -> dict[str, Any]:
    try:
        values = tomllib.loads(content.decode())
        json.dumps(values)
    except (ValueError, TypeError, RecursionError) as error:  # no UTF-8, no TOML, or a date
        raise InputError(f"--config: {path}: wanted TOML with numbers, texts and lists: {str(error)[:200]}") from None
    return values

"""`config.json` of a sweep: what it is asked to do, written and read again."""

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from torchpure import __version__
from torchpure.errors import InputError
from torchpure.runs.saved import read_bytes

from ._space import Axis, Sampler

NAME = "config.json"
MAX_BYTES = 2**26


class Request(NamedTuple):
    """What a sweep is asked to do."""

    options: dict[str, Any]  # of every member
    axes: list[Axis]
    sampler: Sampler
    trials: int | None
    stop_early: int | None


def write_request(request: Request, details: Mapping[str, Any], source: Mapping[str, Any] | None) -> bytes:
    """Return the content of `config.json`; `details` are more of its entries, `source` is a file of options."""
    asked = _plain(request)
    description = {
        "kind": "sweep",
        "torchpure": __version__,
        "torch": torch.__version__,
        "command": _command(request),
        "sweep": asked,
        "sha256": _hash(asked),
        **details,
    }
    description |= {} if source is None else {"config_file": source}
    return json.dumps(description, indent=2).encode() + b"\n"


def is_sweep_folder(folder: str | Path) -> bool:
    """Return whether a folder has the configuration of a sweep."""
    try:
        return _read(Path(folder)).get("kind") == "sweep"
    except InputError:
        return False


def read_request(folder: Path) -> tuple[Request, dict[str, Any]]:
    """Read what a sweep was asked to do, and what its folder says of its data.

    Raises:
        InputError: the file is missing, damaged or changed.
    """
    path, saved = folder / NAME, _read(folder)
    asked, data = saved.get("sweep"), saved.get("data")
    if not isinstance(asked, dict) or not isinstance(data, dict):
        raise InputError(f"{path}: wanted the configuration of a sweep")
    if saved.get("sha256") != _hash(asked):
        raise InputError(f"{path}: was changed since the sweep began: its sha256 differs")
    try:
        axes = [
            Axis(**axis | {"values": tuple(axis["values"])} | _bounds(axis, None, math.nan)) for axis in asked["axes"]
        ]
        return Request(asked["options"], axes, asked["sampler"], asked["trials"], asked["stop_early"]), data
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not what `torchpure sweep` writes: {str(error)[:100]}") from None


def _read(folder: Path) -> dict[str, Any]:
    try:
        saved = json.loads(read_bytes(folder, NAME, MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder / NAME}: not the JSON that `torchpure sweep` writes: {str(error)[:200]}") from None
    return saved if isinstance(saved, dict) else {}


def _plain(request: Request) -> dict[str, Any]:
    """Return a request in a form for JSON, where NaN is null."""
    axes = [axis._asdict() | {"values": list(axis.values)} for axis in request.axes]
    return request._asdict() | {"axes": [axis | _bounds(axis, math.nan, None) for axis in axes]}


def _bounds(axis: Mapping[str, Any], old: float | None, new: float | None) -> dict[str, Any]:
    """Return the bounds of an axis, with another mark for those that are absent."""

    def is_absent(value: float | None) -> bool:
        return value is None if old is None else value != value

    return {name: new if is_absent(axis[name]) else axis[name] for name in ("low", "high")}


def _hash(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _command(request: Request) -> str:
    options = dict(request.options)
    words = ["torchpure", "sweep", str(options.pop("target"))]
    for axis in request.axes:
        words += ["--vary", str(axis)]
    extra = {"sampler": request.sampler, "trials": request.trials, "stop_early": request.stop_early}
    for name, value in {**options, **extra}.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        flag = "--target" if name == "column" else "--" + name.replace("_", "-")
        words += [] if value in (None, "grid") else [flag, text]
    return shlex.join(words)

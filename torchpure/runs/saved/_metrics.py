"""`metrics.jsonl`: a line for each step with any numbers, and a last line with the result."""

import json
import math
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from torchpure.errors import InputError

from ._files import open_file, read_bytes

NAME = "metrics.jsonl"
RESULT = "result.json"
MAX_BYTES = 2**31
MAX_LINE = 2**20
MAX_NAMES = 2000
MAX_NUMBERS = 2**27  # a gigabyte
TAIL = 2**16
NAN = float("nan")


class Metrics(NamedTuple):
    """The numbers of a run."""

    columns: Mapping[str, np.ndarray]  # float64, one number a line, NaN where a line has none; `step` is int64
    result: Mapping[str, Any] | None  # the last line of a finished run


class _Table(NamedTuple):
    """Columns of numbers that grow by lines; a line may bring new columns."""

    steps: "array[int]"
    columns: "dict[str, array[float]]"


def read_metrics(folder: Path) -> Metrics:
    """Read all lines; a last line without its end is not complete, and left out.

    Raises:
        InputError: the file is missing or too large, or a line is not what a run writes.
    """
    path, table, result, num_numbers = folder / NAME, _Table(array("q"), {}), None, 0
    with open_file(folder, NAME, MAX_BYTES) as (file, _):
        for number, line in enumerate(_lines(path, file), start=1):
            place = f"{path}: line {number}"
            values = _parse(place, line)
            result = values if "status" in values else None
            if result is None:
                _append(table, _step(place, values), _numbers(place, values))
                num_numbers += 1 + len(table.columns)
                _check_size(path, len(table.columns), num_numbers)
    columns = {name: np.array(column) for name, column in table.columns.items()}
    return Metrics(
        {"step": np.array(table.steps, dtype=np.int64)} | columns, result and _checked(f"{path}: the last line", result)
    )


def read_seconds(folder: Path) -> Mapping[str, Any]:
    """Read what `result.json` has besides the result: `seconds` and `threads`; {} if there is no such file.

    Raises:
        InputError: the file is too large, no regular file, or not what a run writes.
    """
    path = folder / RESULT
    if not os.path.lexists(path):
        return {}
    values = _parse(str(path), read_bytes(folder, RESULT, MAX_LINE))
    return {name: _number(str(path), name, values.get(name)) for name in ("seconds", "threads")}


def read_last(folder: Path) -> Mapping[str, Any]:
    """Read the last complete line: the result of a finished run, or the newest step of another; {} if there is none.

    Raises:
        InputError: see `read_metrics`.
    """
    path = folder / NAME
    with open_file(folder, NAME, MAX_BYTES) as (file, size):
        file.seek(max(0, size - TAIL), os.SEEK_SET)
        *lines, _ = file.read(TAIL).split(b"\n")
    if not lines:
        return {}
    place = f"{path}: the last line"
    values = _parse(place, lines[-1])
    return _checked(place, values) if "status" in values else values


def _append(table: _Table, step: int, numbers: Mapping[str, float]) -> None:
    if table.steps and step <= table.steps[-1]:
        rows = bisect_left(table.steps, step)  # a resumed run repeats the steps after its checkpoint
        for column in (table.steps, *table.columns.values()):
            del column[rows:]
    for name in numbers:
        if name not in table.columns:
            table.columns[name] = array("d", [NAN]) * len(table.steps)
    table.steps.append(step)
    for name, column in table.columns.items():
        column.append(numbers.get(name, NAN))


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise InputError(f"{path}: a line has more than {MAX_LINE} bytes; wanted the metrics of a run")
        if not line.endswith(b"\n"):
            return
        yield line


def _parse(place: str, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON: {str(error)[:100]}") from None
    if not isinstance(values, dict):
        raise InputError(f"{place}: wanted an object with numbers, got {str(values)[:60]}")
    return values


def _step(place: str, values: Mapping[str, Any]) -> int:
    step = values.get("step")
    if type(step) is not int or not 0 <= step < 2**63:
        raise InputError(f"{place}: wanted a `step`, an integer from 0, got {str(step)[:60]}")
    return step


def _numbers(place: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Take the numbers of a line; those of an object get names like `gradient_norms/0.weight`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}/{inner}": _number(place, inner, part) for inner, part in value.items()}
        elif name != "step" and not isinstance(value, str):
            found[name] = _number(place, name, value)
    return found


def _number(place: str, name: str, value: object) -> float:
    if value is None:
        return NAN
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise InputError(f"{place}, `{name[:60]}`: wanted a number, got {str(value)[:60]}")


def _check_size(path: Path, num_names: int, num_numbers: int) -> None:
    if num_names > MAX_NAMES or num_numbers > MAX_NUMBERS:
        raise InputError(f"{path}: more than {MAX_NAMES} names or {MAX_NUMBERS} numbers")


def _checked(place: str, result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the result; losses that are not finite are null in the file, and NaN here."""
    if not isinstance(result["status"], str) or len(result["status"]) > 40:
        raise InputError(f"{place}: wanted a `status`, a word, got {str(result['status'])[:60]}")
    wanted = ("steps", "train_loss", "test_loss", "seconds")
    return dict(result) | {name: _number(place, name, result.get(name)) for name in wanted}

"""Read the input columns and the target column of a data file."""

import difflib
import re
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure.errors import InputError

from ._domain import LARGEST
from ._formats import FORMATS

MAX_COLUMNS = 1000
MAX_NAME = 40


class Table(NamedTuple):
    """The columns of a data file that a fit uses."""

    inputs: tuple[str, ...]
    x: Tensor  # float64, (rows, inputs)
    y: Tensor  # float64, (rows,)


def is_table(target: str) -> bool:
    """Return whether TARGET names a data file, by its suffix.

    >>> is_table("data/Prices.CSV"), is_table("2*x")
    (True, False)
    """
    return target.lower().endswith(tuple(FORMATS))


def read_table(path: Path, column: str | None, inputs: Sequence[str] | None) -> Table:
    """Read the target column and the input columns; the default inputs are all other columns.

    Raises:
        InputError: the file, a column or a number in it is invalid.
    """
    form = FORMATS[path.suffix.lower()]
    try:
        _check_regular(path)
        names = form.names(path)
        chosen = _choose(path, names, column, inputs)
        *columns, y = form.values(path, [*chosen, column or ""])
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}; wanted a data file") from None
    if len(y) < 2:
        raise InputError(f"{path}: {len(y)} rows of data; wanted at least 2, one to train and one to test")
    for name, values in zip((*chosen, column), (*columns, y), strict=True):
        if values.abs().max() > LARGEST:
            raise InputError(f"{path}: column `{name}` has numbers larger than {LARGEST:g}")
    return Table(tuple(chosen), torch.stack(columns, dim=-1), y)


def _check_regular(path: Path) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "directory" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device or socket"
        raise InputError(f"{path}: is a {kind}; wanted a data file")


def _choose(path: Path, names: list[str], column: str | None, inputs: Sequence[str] | None) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path}: column `{twice[0][:MAX_NAME]}` appears more than once")
    if column is None:
        raise InputError(f"{path}: a data file needs --target COLUMN; {_show_columns(names)}")
    _check_present(path, names, column, "--target")
    if inputs is None:
        inputs = [name for name in names if name != column]
        if "" in inputs:
            number = names.index("") + 1
            raise InputError(f"{path}: column {number} has no name; name it, or choose columns with --inputs a,b")
    else:
        _check_inputs(path, names, column, inputs)
    if not 1 <= len(inputs) <= MAX_COLUMNS:
        raise InputError(
            f"{path}: {len(inputs)} input columns; wanted 1 to {MAX_COLUMNS} besides the target; {_show_columns(names)}"
        )
    return list(inputs)


def _check_inputs(path: Path, names: list[str], column: str, inputs: Sequence[str]) -> None:
    present = {*names} - {""}
    for name in inputs:
        if name not in present:
            _check_present(path, names, name, "--inputs")
    if column in inputs:
        raise InputError(f"--inputs: `{column}` is the target; it cannot be an input too")
    twice = [name for name, count in Counter(inputs).items() if count > 1]
    if twice:
        raise InputError(f"--inputs: `{twice[0]}` appears twice")


def _check_present(path: Path, names: list[str], name: str, option: str) -> None:
    if name in names and name:
        return
    close = difflib.get_close_matches(name[:MAX_NAME], names[:MAX_COLUMNS], n=1)
    guess = f" (did you mean `{close[0]}`?)" if close else ""
    hint = _csv_hint(names) if path.suffix.lower() == ".csv" else ""
    raise InputError(f"{option}: {path} has no column `{name[:MAX_NAME]}`{guess}; {_show_columns(names)}{hint}")


def _csv_hint(names: list[str]) -> str:
    if len(names) == 1:
        return " - are its columns separated by something other than commas?"
    if all(re.fullmatch(r"[-+.\deE]+", name) for name in names):
        return " - the first line must be a header with the names of the columns"
    return ""


def _show_columns(names: list[str]) -> str:
    shown = ", ".join(name[:MAX_NAME] for name in names[:30])
    return f"it has: {shown}{', ...' if len(names) > 30 else ''}"

"""Read columns of a data file by name, without a target; write columns to a new one."""

import csv
import difflib
import io
import os
import secrets
import stat
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from torchpure.errors import InputError

from ._formats import FORMATS

MAX_SHOWN = 30
MAX_NAME = 40


def column_names(path: Path) -> list[str]:
    """Name the columns of a data file.

    Raises:
        InputError: the file is missing, damaged or of an unknown kind, or a name appears twice.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{str(path)[:200]!r}: wanted a data file: {', '.join(FORMATS)}")
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: is no regular file; wanted a data file")
        names = form.names(path)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{str(path)[:200]}: {reason.lower()}; wanted a data file") from None
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path}: column `{twice[0][:MAX_NAME]}` appears more than once")
    return names


def read_columns(path: Path, wanted: Sequence[str]) -> Tensor:
    """Read the named columns, (rows, columns), float64.

    Raises:
        InputError: the file cannot be read, or a column is missing: the nearest names are shown.
    """
    names = column_names(path)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(f"{path}: {_describe_missing(missing, names)}; it has: {_shown(names)}")
    return torch.stack(FORMATS[path.suffix.lower()].values(path, list(wanted)), dim=-1)


def write_columns(path: Path, columns: Mapping[str, Tensor]) -> None:
    """Write float64 columns of one length; a file of that name is replaced at the end, in one step.

    Law: read_columns(path, list(columns)) has the bits of the columns that write_columns(path, columns) wrote.

    Raises:
        InputError: the suffix is unknown, or the place cannot be written.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise InputError(f"{str(path)[:200]!r}: wanted a name that ends with {', '.join(_WRITERS)}")
    if os.path.lexists(path) and not path.is_file():
        raise InputError(f"{path}: exists, and is no regular file")
    temporary = path.parent / f".{path.name[:40]}-{secrets.token_hex(4)}.partial"
    try:
        with temporary.open("xb") as file:
            write(file, columns)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(file: BinaryIO, columns: Mapping[str, Tensor]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    text.detach()


def _write_npz(file: BinaryIO, columns: Mapping[str, Tensor]) -> None:
    import numpy as np

    with zipfile.ZipFile(file, "w") as archive:  # numpy.savez takes no column named `file`
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, column.numpy(), allow_pickle=False)


def _write_parquet(file: BinaryIO, columns: Mapping[str, Tensor]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("writing Parquet needs pyarrow: pip install 'torchpure[parquet]'") from None
    pq.write_table(pa.table({name: column.numpy() for name, column in columns.items()}), file)


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".npz": _write_npz}


def _describe_missing(missing: Sequence[str], names: Sequence[str]) -> str:
    parts = []
    for name in missing[:5]:
        close = difflib.get_close_matches(name[:MAX_NAME], names, n=1)
        parts.append(f"`{name[:MAX_NAME]}`" + (f" (did you mean `{close[0][:MAX_NAME]}`?)" if close else ""))
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"the model needs column{'s' * (len(missing) > 1)} {', '.join(parts)}{more}"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:MAX_NAME] for name in names[:MAX_SHOWN]) + (", ..." if len(names) > MAX_SHOWN else "")

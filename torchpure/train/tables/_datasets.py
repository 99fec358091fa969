"""Datasets of pyarrow, and files by their path, as the data of a fit: read in blocks, batch by batch."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchpure import random
from torchpure._types import Key

from ._tables import batch_of, check_columns

if TYPE_CHECKING:
    from pyarrow import dataset as pyarrow_dataset

BLOCK = 2**16  # rows that are shuffled at once
_FORMATS = {".csv": "csv", ".parquet": "parquet", ".feather": "feather", ".arrow": "feather"}
_PARTS, _ROWS = 0x7061727473, 0x726F7773  # separate keys for the order of parts, and of rows


def is_dataset(data: object) -> bool:
    """Return whether data are a dataset of pyarrow, or the path of files."""
    return isinstance(data, Path) or (hasattr(data, "to_batches") and hasattr(data, "get_fragments"))


class DatasetBatches:
    """Batches of some columns of a dataset, read again for each epoch; at most some blocks are in memory.

    With a key, each epoch reads the parts in a new order (row groups of Parquet files, whole files of others) and
    shuffles the rows of each block.
    """

    def __init__(
        self,
        data: Any,
        columns: Sequence[str] | None,
        dtype: torch.dtype | None,
        batch_size: int | None,
        key: Key | None,
        *,
        for_module: bool,
    ) -> None:
        """Take the columns.

        Raises:
            ValueError: no `batch_size` is given, a file or a column is missing, or files differ: both are named.
            TypeError: `columns` is no list, or a path has no known format.
        """
        if batch_size is None:
            raise ValueError("fit: a dataset is read batch by batch: pass batch_size=")
        self._data, present = _open(data) if isinstance(data, Path) else (data, data.schema.names)
        self._names = check_columns("dataset", columns, present)
        self._parts = _parts(self._data, self._names)
        self._dtype, self._size, self._key, self._for_module = dtype, batch_size, key, for_module

    def num_rows(self) -> int:
        """Return the number of rows in an epoch."""
        return self._data.count_rows()

    def num_batches(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.batch_sizes())

    def batch_sizes(self) -> list[int]:
        """Return the number of rows of each batch of an epoch."""
        whole, rest = divmod(self.num_rows(), self._size)
        return [self._size] * whole + [rest] * bool(rest)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the first epoch."""
        return self.epoch(0)

    def epoch(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of an epoch, from 0; the last one may be smaller."""
        import pyarrow as pa

        rest = None
        for number, block in enumerate(self._blocks(epoch)):
            rows = block if rest is None else pa.concat_tables([rest, block])
            whole = rows.num_rows // self._size * self._size
            if self._key is not None:
                key = random.fold_in(random.fold_in(random.fold_in(self._key, epoch), _ROWS), number)
                rows = rows.take(random.permutation(key, rows.num_rows).numpy())
            for start in range(0, whole, self._size):
                yield self._batch(rows.slice(start, self._size))
            rest = rows.slice(whole)
        if rest is not None and rest.num_rows:
            yield self._batch(rest)

    def _batch(self, rows: Any) -> Any:
        return batch_of(rows, self._names, self._dtype, for_module=self._for_module)

    def _blocks(self, epoch: int) -> Iterator[Any]:
        """Yield all rows, part by part, in tables of about `BLOCK` rows."""
        import pyarrow as pa

        order = range(len(self._parts))
        if self._key is not None:
            k_parts = random.fold_in(random.fold_in(self._key, epoch), _PARTS)
            order = random.permutation(k_parts, len(self._parts)).tolist()
        pending, count, least = list[Any](), 0, max(BLOCK, self._size)
        schema = pa.schema([self._data.schema.field(name) for name in self._names])
        for place in order:
            scanned = self._parts[place].to_batches(
                self._data.schema, columns=self._names, batch_size=BLOCK, batch_readahead=1, fragment_readahead=1
            )
            for batch in scanned:
                pending.append(batch)
                count += batch.num_rows
                if count >= least:
                    yield pa.Table.from_batches(pending, schema)
                    pending, count = [], 0
        if count:
            yield pa.Table.from_batches(pending, schema)


def _open(path: Path) -> tuple[pyarrow_dataset.Dataset, list[str]]:
    """Open a file, a folder, or the files of a pattern such as data/*.parquet; return the names of the columns too.

    The columns that folders such as year=2024 stand for are first, so that the last column of the files stays last.
    """
    from pyarrow import dataset

    pattern = _is_pattern(str(path)) and not path.exists()
    found = glob.glob(str(path), recursive=True) if pattern else _inside(path) if path.is_dir() else [str(path)]  # noqa: PTH207 a Path cannot take an absolute pattern
    files = sorted(found)
    if not files or not (pattern or path.exists()):
        raise ValueError(f"fit: {path}: no such files")
    suffixes = {Path(file).suffix.lower(): file for file in files}
    if len(suffixes) > 1 or not suffixes.keys() <= _FORMATS.keys():
        raise TypeError(
            f"fit: {path}: wanted files of one kind, of {', '.join(_FORMATS)}, got {', '.join(suffixes.values())[:200]}"
        )
    base = Path(*itertools.takewhile(lambda part: not _is_pattern(part), path.parts)) if pattern else path
    opened: Any = dataset.dataset(
        files, format=_FORMATS[next(iter(suffixes))], partitioning="hive", partition_base_dir=str(base)
    )
    folders = opened.partitioning.schema.names
    return opened, [*folders, *(name for name in opened.schema.names if name not in folders)]


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _inside(folder: Path) -> list[str]:
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not any(part[:1] in "._" for part in path.relative_to(folder).parts)
    ]


def _parts(data: Any, names: Sequence[str]) -> list[Any]:
    """Return the parts that can be read in any order, after a check that all files agree."""
    try:
        fragments = [*data.get_fragments()]
    except ValueError as error:
        raise ValueError(f"fit: the dataset cannot be read part by part: {error}") from None
    for fragment in fragments:
        _check_schema(fragment, fragments[0], data.schema, names)
    splits = [getattr(fragment, "split_by_row_group", lambda one=fragment: [one])() for fragment in fragments]
    return [part for split in splits for part in split]


def _check_schema(fragment: Any, first: Any, schema: Any, names: Sequence[str]) -> None:
    """Check that a file has the columns of the dataset, in the same kinds: a missing one would be read as nulls."""
    from pyarrow import types

    found: Mapping[str, Any] = {field.name: field.type for field in fragment.physical_schema}
    paths = [getattr(one, "path", "the first part") for one in (first, fragment)]
    is_number = (types.is_integer, types.is_floating, types.is_boolean)
    for name in names:
        if name not in found and name in first.physical_schema.names:
            raise ValueError(f"fit: {paths[0]} has column {name!r}, {paths[1]} has not: wanted the same columns")
        wanted, got = schema.field(name).type, found.get(name)
        if got is not None and any(check(wanted) for check in is_number) != any(check(got) for check in is_number):
            raise ValueError(
                f"fit: column {name!r} holds {wanted} in {paths[0]}, and {got} in {paths[1]}: wanted the same"
            )

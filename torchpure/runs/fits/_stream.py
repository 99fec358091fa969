"""Training on a file larger than memory: a sample of it is kept, and each epoch reads all other rows in blocks.

The sample gives the rules of the columns, the units, and the validation and test points. The parts of a Parquet or
Arrow file are read in a new order in each epoch, and the rows of each block are shuffled.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import random
from torchpure._types import Key
from torchpure.data import (
    Choice,
    Preprocessing,
    Table,
    Types,
    complete_rows,
    encode,
    encode_targets,
    find_types,
    num_blocks,
    read_blocks,
)

_PARTS, _ROWS = 0x7061727473, 0x726F7773  # separate keys for the order of parts, and of rows


class Stream(NamedTuple):
    """The training rows of a file."""

    path: Path
    names: tuple[str, ...]
    types: Types
    drop: bool  # incomplete rows are left out
    block: int  # rows in memory at once
    rows: int  # in an epoch
    held_out: Tensor  # the numbers of validation and test rows, sorted
    preprocessing: Preprocessing

    def batches(self, key: Key, steps: int, batch_size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features and targets for the steps from `start`; the last batch of an epoch may be smaller.

        Law: `batches(…, start=n)` yields what `batches(…)` yields after n batches.
        """
        per_epoch = -(-self.rows // batch_size)
        for epoch in range(start // per_epoch, -(-steps // per_epoch)):
            first = epoch * per_epoch
            found = self._epoch(random.fold_in(key, epoch), batch_size)
            yield from itertools.islice(found, max(start - first, 0), min(steps - first, per_epoch))

    def _epoch(self, key: Key, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = random.permutation(random.fold_in(key, _PARTS), num_blocks(self.path)).tolist()
        k_rows = random.fold_in(key, _ROWS)
        rest: list[tuple[Tensor, Tensor]] = []
        for number, table in enumerate(_complete(self, order)):
            x, y = encode(self.preprocessing.inputs, table), encode_targets(self.preprocessing.targets, table)
            rows = random.permutation(random.fold_in(k_rows, number), len(y))
            x, y = (torch.cat(parts) for parts in zip(*rest, (x[rows], y[rows]), strict=True))
            whole = len(y) // batch_size * batch_size
            yield from zip(x[:whole].split(batch_size), y[:whole].split(batch_size), strict=True) if whole else ()
            rest = [(x[whole:], y[whole:])]
        if rest and len(rest[0][1]):
            yield rest[0]


class Sampled(NamedTuple):
    """One pass over a file."""

    table: Table  # some of its rows, each with the same probability
    types: Types
    rows: int  # all complete rows


def sample(path: Path, choice: Choice, key: Key, block: int, *, drop: bool) -> Sampled:
    """Read a file once, and keep about `block` of its rows: those with the smallest random numbers.

    Raises:
        InputError: the file is damaged.
    """
    names = (*choice.inputs, *choice.targets)
    types, rows, kept = find_types(path, names), 0, None
    stream = Stream(
        path, names, types, drop, block, 0, torch.empty(0, dtype=torch.int64), Preprocessing.model_construct()
    )
    draws = torch.empty(0, dtype=torch.float64)
    for number, table in enumerate(_complete(stream, None)):
        rows += table.arrow.num_rows
        fresh = random.uniform(random.fold_in(key, number), (table.arrow.num_rows,), dtype=torch.float64)
        draws = torch.cat([draws, fresh])
        merged = table if kept is None else _joined(kept, table)
        chosen = draws.argsort()[:block].sort().values
        kept, draws = _taken(merged, chosen), draws[chosen]
    assert kept is not None
    return Sampled(kept, types, rows)


def _complete(stream: Stream, order: Sequence[int] | None) -> Iterator[Table]:
    """Yield the blocks without rows that are held out or, on request, incomplete."""
    for table in read_blocks(stream.path, stream.names, stream.types, stream.block, order):
        assert table.rows is not None
        keep = ~torch.isin(table.rows, stream.held_out)
        if stream.drop:
            complete = torch.zeros_like(keep)
            complete[complete_rows(table, stream.names)] = True
            keep &= complete
        if keep.any():
            yield table if keep.all() else _taken(table, keep.nonzero().squeeze(1))


def _taken(table: Table, rows: Tensor) -> Table:
    assert table.rows is not None
    return table._replace(arrow=table.arrow.take(rows.numpy()), rows=table.rows[rows])


def _joined(first: Table, second: Table) -> Table:
    import pyarrow as pa

    assert first.rows is not None and second.rows is not None
    return first._replace(
        arrow=pa.concat_tables([first.arrow, second.arrow]), rows=torch.cat([first.rows, second.rows])
    )

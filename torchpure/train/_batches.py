"""The source of a run's batches: tensors, minibatches, or an iterable."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key

from ._data import Batch, BatchReader, Data
from ._steps import Step, make_epoch
from ._windows import CHUNK, Epochs, Window, batch_windows, full_data_windows
from .tables import DatasetBatches


class BatchSource:
    """The batches of a run: all rows of tensors, minibatches drawn from a key, or repeated items of an iterable."""

    def __init__(
        self, data: Data, reader: BatchReader, steps: int, batch_size: int | None, key: Key | None, every: int | None
    ) -> None:
        """Take the data.

        Raises:
            ValueError: the tensors differ in their number of rows, or `batch_size` does not fit or has no key.
        """
        self._data, self._reader = data, reader
        self._steps, self._batch_size, self._key, self._every = steps, batch_size, key, every
        if data.batches is not None:
            if batch_size is not None:
                raise ValueError("fit: batch_size is for tensors; an iterable of batches sets its own batch sizes")
            return
        rows = _num_rows(data.tensors)
        if batch_size is not None and not 0 < batch_size <= rows:
            raise ValueError(f"fit: batch_size must be in 1 … {rows}, the number of rows; got {batch_size}")
        if batch_size is not None and key is None:
            raise ValueError("fit: minibatches are drawn from a key: pass key=tp.random.key(0) with batch_size")

    def windows(self, step: Step, *, jit: bool, first: int = 0, unread: int = 0) -> Iterator[Window]:
        """Return the windows of the run from step `first` on. Each step has its own number, and its own rows or batch.

        Of the batches of steps before `unread` only the shapes count, so that whole epochs of a dataset are not read.

        Raises:
            ValueError: the iterable ends too soon.
        """
        data, tensors = self._data, self._data.tensors
        if data.batches is not None:
            every = self._every or max(min(self._steps, CHUNK), 1)
            batches = _repeat_batches(data.batches, self._reader, self._steps, first, unread)
            return batch_windows(step, batches, every if jit else 1, every, first=first)
        if self._batch_size is None or self._key is None:
            device = (tensors[0] if self._key is None else self._key).device
            return full_data_windows(step, tensors, self._steps, self._every, device, first)
        epochs = Epochs(step, make_epoch(step, self._batch_size), tensors, self._key, self._batch_size)
        return epochs.windows(self._steps, self._every, nest_epochs=jit, first=first)


def minibatches(key: Key, data: tuple[Tensor, ...], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches forever, in a new order in each epoch; the last batch of an epoch may be smaller.

    >>> import torch
    >>> [batch[0].tolist() for batch in itertools.islice(minibatches(random.key(0), (torch.arange(3),), 2), 2)]
    [[..., ...], [...]]
    """
    for epoch in itertools.count():
        order = random.permutation(random.fold_in(key, epoch), len(data[0]))
        for rows in order.to(data[0].device).split(batch_size):
            yield tuple(tensor[rows] for tensor in data)


def _num_rows(data: tuple[Tensor, ...]) -> int:
    if any(tensor.ndim == 0 for tensor in data) or len({len(tensor) for tensor in data}) > 1:
        raise ValueError(f"fit: data must have the same number of rows, got {', '.join(map(tree.describe, data))}")
    if not len(data[0]):
        raise ValueError("fit: data has no rows")
    return len(data[0])


def _repeat_batches(data: Iterable[Any], reader: BatchReader, steps: int, first: int, unread: int) -> Iterator[Batch]:
    number, count = 0, 0
    if isinstance(data, DatasetBatches) and max(first, unread):
        number = max(first, unread) // max(data.num_batches(), 1)
        count = number * data.num_batches()
        if first < count:
            yield from itertools.islice(_stand_ins(data, reader, number), first, None)
    while count < steps:
        before = count
        # once an epoch: a DataLoader draws its order and starts its workers here
        epoch = data.epoch(number) if isinstance(data, DatasetBatches) else iter(data)
        number += 1
        for batch in reader.batches(itertools.islice(epoch, steps - count)):
            count += 1
            if count > first:
                yield batch
        if count < steps and (epoch is data or count == before):
            raise ValueError(
                f"fit: the batches ended after {count} of {steps} steps; pass an iterable that can be read again"
            )


def _stand_ins(data: DatasetBatches, reader: BatchReader, epochs: int) -> Iterator[Batch]:
    """Yield batches of the shapes that some epochs have; all are parts of the first one."""
    if epochs:
        first = next(reader.batches(data.epoch(0)))
        for size in data.batch_sizes() * epochs:
            yield tree.map(lambda leaf, size=size: leaf[:size], first)

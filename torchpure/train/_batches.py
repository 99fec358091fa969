"""Where a run's batches come from."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key

from ._steps import Step, epoch_of
from ._windows import CHUNK, Epochs, Window, listed, numbered

Batch = tuple[Any, ...]


class Source:
    """The batches of a run: of tensors all rows at once, or keyed minibatches; of an iterable its items, repeated."""

    def __init__(self, data: Any, steps: int, batch_size: int | None, key: Key | None, every: int | None) -> None:
        """Take the data.

        Raises:
            ValueError: rows differ in number, or `batch_size` does not fit or has no key.
        """
        self._data: Any = (data,) if isinstance(data, Tensor) else data
        self._steps, self._size, self._key, self._every = steps, batch_size, key, every
        self._tensors = bool(
            isinstance(self._data, tuple) and self._data and all(isinstance(part, Tensor) for part in self._data)
        )
        if not self._tensors:
            if batch_size is not None:
                raise ValueError("fit: batch_size is for tensors; an iterable of batches has its own")
            return
        rows = _rows(self._data)
        if batch_size is not None and (key is None or not 0 < batch_size <= rows):
            problem = (
                f"got {batch_size}"
                if key is not None
                else "minibatches are drawn from a key: pass key=tp.random.key(0)"
            )
            raise ValueError(f"fit: batch_size must be in 1 … {rows}, the number of rows, with a key; {problem}")

    def windows(self, step: Step, *, jit: bool) -> Iterator[Window]:
        """Return the steps of the run. What is a step's own is its number, and its rows or its batch.

        Raises:
            ValueError: an iterator ends too soon.
        """
        if not self._tensors:
            every = self._every or max(min(self._steps, CHUNK), 1)
            return listed(step, _repeated(self._data, self._steps), every if jit else 1, every, numbers=True)
        if self._size is None or self._key is None:
            device = (self._data[0] if self._key is None else self._key).device
            return numbered(step, self._data, self._steps, self._every, device)
        epochs = Epochs(step, epoch_of(step, self._size), self._data, self._key, self._size)
        return epochs.windows(self._steps, self._every, nested=jit)


def minibatches(key: Key, data: tuple[Tensor, ...], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches without end, in a new order each time round; the last of a round may be smaller.

    >>> import torch
    >>> [batch[0].tolist() for batch in itertools.islice(minibatches(random.key(0), (torch.arange(3),), 2), 2)]
    [[..., ...], [...]]
    """
    for epoch in itertools.count():
        order = random.permutation(random.fold_in(key, epoch), len(data[0]))
        for rows in order.to(data[0].device).split(batch_size):
            yield tuple(part[rows] for part in data)


def _rows(data: tuple[Tensor, ...]) -> int:
    if any(part.ndim == 0 for part in data) or len({len(part) for part in data}) > 1:
        raise ValueError(f"fit: data must have the same number of rows, got {', '.join(map(tree.describe, data))}")
    if not len(data[0]):
        raise ValueError("fit: data has no rows")
    return len(data[0])


def _repeated(data: Iterable[Any], steps: int) -> Iterator[Batch]:
    if not isinstance(data, Iterable):
        raise TypeError(f"fit: data must be tensors or an iterable of batches, got {tree.describe(data)}")
    made = 0
    while made < steps:
        before = made
        for batch in itertools.islice(data, steps - made):
            made += 1
            yield tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        if made < steps and (iter(data) is data or made == before):
            raise ValueError(
                f"fit: the batches ended after {made} of {steps} steps; pass something that can be repeated"
            )

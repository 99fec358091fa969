"""Where a run's batches come from."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key

Batch = tuple[Any, ...]


def take(data: Any, steps: int, batch_size: int | None, key: Key | None) -> Iterator[Batch]:
    """Return `steps` batches: of tensors all rows at once, or keyed minibatches; of an iterable its items, repeated.

    Raises:
        ValueError: rows differ in number, `batch_size` does not fit or has no key, or an iterator ends too soon.
    """
    if isinstance(data, Tensor):
        data = (data,)
    if not (isinstance(data, tuple) and data and all(isinstance(part, Tensor) for part in data)):
        if batch_size is not None:
            raise ValueError("fit: batch_size is for tensors; an iterable of batches has its own")
        return _repeated(data, steps)
    rows = _rows(data)
    if batch_size is None:
        return itertools.repeat(data, steps)
    if key is None or not 0 < batch_size <= rows:
        problem = "minibatches are drawn from a key: pass key=tp.random.key(0)" if key is None else f"got {batch_size}"
        raise ValueError(f"fit: batch_size must be in 1 … {rows}, the number of rows, with a key; {problem}")
    return itertools.islice(minibatches(key, data, batch_size), steps)


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

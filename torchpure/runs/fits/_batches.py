"""The batches of a training. The position in them is one integer, the number of steps made."""

import itertools
from collections.abc import Iterator

from torch import Tensor

from torchpure import random
from torchpure._types import Key

_ORDER = 0x6F72646572  # separates the key of the order from the keys of initial values


def batches(
    x: Tensor, y: Tensor, steps: int, batch_size: int | None, key: Key, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of the steps from `start`, counted from 0; without `batch_size`, all rows in each.

    Each epoch has a new order, drawn from the key and the number of the epoch; its last batch may be smaller.

    Law: `batches(…, start=n)` yields what `batches(…)` yields after n batches.
    """
    if batch_size is None:
        yield from itertools.repeat((x, y), steps - start)
        return
    per_epoch = steps_per_epoch(len(y), batch_size)
    for epoch in range(start // per_epoch, -(-steps // per_epoch)):
        order = random.permutation(random.fold_in(order_key(key), epoch), len(y)).to(x.device)
        first = epoch * per_epoch
        for step in range(max(start, first), min(steps, first + per_epoch)):
            rows = order[(step - first) * batch_size : (step - first + 1) * batch_size]
            yield x[rows], y[rows]


def order_key(key: Key) -> Key:
    """Return the key of the order of rows."""
    return random.fold_in(key, _ORDER)


def steps_per_epoch(rows: int, batch_size: int | None) -> int:
    """Return the number of steps in which each row is used once.

    >>> steps_per_epoch(10, 4), steps_per_epoch(10, None)
    (3, 1)
    """
    return 1 if batch_size is None else -(-rows // batch_size)

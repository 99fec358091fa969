"""The minibatches of members: each has the batches of its own fit."""

import sys
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import random
from torchpure.transforms import vmap


def full_batches(rows: int, size: int, step: int, length: int) -> int:
    """Return how many batches from a step on have one size, at most `length`; each epoch has all rows.

    >>> [full_batches(10, 4, step, 5) for step in range(4)]  # the third batch of an epoch has two rows
    [2, 1, 1, 2]
    """
    full, per_epoch = rows // size, -(-rows // size)
    if full == per_epoch:
        return length
    return min(length, full - step % per_epoch) if step % per_epoch < full else 1


class Batches(NamedTuple):
    """Batches of `size` rows in a new order in each epoch; the last batch of an epoch may be smaller."""

    keys: Tensor  # (members, 2): of the order of rows
    rows: int
    size: int

    def steps_at(self, step: int, length: int) -> int:
        """Return how many steps a window of at most `length` steps has from a step on: their batches have one size."""
        return full_batches(self.rows, self.size, step, length)

    def longest(self) -> int:
        """Return how many steps a window has at most."""
        return sys.maxsize

    def window(self, members: Tensor, step: int, length: int, steps: int) -> tuple[Tensor, Tensor]:
        """Return the numbers of a window's steps, and the rows of their batches, (members, steps, batch).

        Windows of full batches have `length` steps, so that one program runs them; those added have number `steps`.
        """
        count, per_epoch = self.steps_at(step, length), -(-self.rows // self.size)
        epochs = range(step // per_epoch, (step + count - 1) // per_epoch + 1)
        orders = [self._orders(members, epoch) for epoch in epochs]
        position, full = step % per_epoch, self.rows // self.size
        if position >= full:  # the smaller batch
            return torch.tensor([step]), orders[0][:, None, full * self.size :]
        batches = torch.cat([order[:, : full * self.size] for order in orders], 1).view(len(members), -1, self.size)
        rows = batches[:, position : position + count]
        added = length - count
        numbers = torch.cat([torch.arange(step, step + count), torch.full((added,), steps)])
        return numbers, torch.cat([rows, rows[:, :1].expand(-1, added, -1)], 1)

    def _orders(self, members: Tensor, epoch: int) -> Tensor:
        return vmap(lambda key: random.permutation(random.fold_in(key, epoch), self.rows))(self.keys[members])

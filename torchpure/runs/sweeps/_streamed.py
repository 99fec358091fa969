"""The minibatches of members that share the rows of files larger than memory: one pass an epoch serves all of them."""

import itertools
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchpure._types import Key
from torchpure.runs.fits import Stream

from ._batches import full_batches

MAX_BYTES = 2**26  # of the batches of a window


class StreamedBatches:
    """Batches of `size` rows, read in blocks: those of a fit with the same seed."""

    def __init__(
        self, stream: Stream, key: Key, size: int, steps: int, encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> None:
        """Take the rows; `encode` standardises features and targets. Nothing is read yet."""
        self._stream, self._key, self.size, self._steps, self._encode = stream, key, size, steps, encode
        self._lock = threading.Lock()
        self._window: tuple[int, tuple[Tensor, tuple[Tensor, Tensor]]] | None = None  # its first step
        self._read: tuple[int, Iterator[tuple[Tensor, Tensor]]] | None = None  # the step of the next batch

    def steps_at(self, step: int, length: int) -> int:
        """Return how many steps a window of at most `length` steps has from a step on: their batches have one size."""
        return full_batches(self._stream.rows, self.size, step, length)

    def longest(self) -> int:
        """Return how many steps a window has at most."""
        return max(1, MAX_BYTES // (8 * self.size * (len(self._stream.names) + 1)))

    def window(self, members: Tensor, step: int, length: int, steps: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the numbers of a window's steps, and their batches: (steps, batch, features) and (steps, batch, …).

        All members have the same. Steps that are added, so that windows have one length, have number `steps`.
        """
        with self._lock:
            if self._window is None or self._window[0] != step:
                self._window = (step, self._make(step, length, steps))
            return self._window[1]

    def _make(self, step: int, length: int, steps: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        count = min(self.steps_at(step, length), steps - step)
        if self._read is None or self._read[0] != step:  # at the start, and where a sweep goes on
            self._read = (step, self._stream.batches(self._key, self._steps, self.size, step))
        batches = [self._encode(*batch) for batch in itertools.islice(self._read[1], count)]
        self._read = (step + count, self._read[1])
        x, y = (torch.stack(values) for values in zip(*batches, strict=True))
        if len(y[0]) < self.size:  # the smaller batch of an epoch
            return torch.tensor([step]), (x, y)
        added = length - count
        numbers = torch.cat([torch.arange(step, step + count), torch.full((added,), steps)])
        return numbers, (_extended(x, added), _extended(y, added))


def _extended(values: Tensor, count: int) -> Tensor:
    return torch.cat([values, values[:1].expand(count, *values.shape[1:])]) if count else values

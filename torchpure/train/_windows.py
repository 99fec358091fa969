"""Windows: consecutive steps that can run as one program, because their batches have equal shapes."""

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key
from torchpure.transforms import vmap

Batch = tuple[Any, ...]
CHUNK = 1000  # the steps of a program if the user gives no number
_MAX_STACKED_BYTES = 1 << 26  # of batches that are stacked by a copy


class Window(NamedTuple):
    """Steps and their arguments: values shared by all steps, and values per step."""

    step: Callable[..., Any]
    arguments: Callable[[int], tuple[Any, Any]]  # an iteration's index -> (shared, per_step)
    stacked_arguments: Callable[[], tuple[Any, Any]]  # (shared, per_step stacked over all iterations)
    iterations: int
    steps: int  # in all iterations; one iteration may be a whole epoch
    shape_key: Hashable  # equal for windows whose batches have equal shapes; None: shapes are unknown
    stackable: bool  # the iterations can be stacked
    full_size: bool  # other windows have as many iterations, or this is the whole run
    reports: bool  # a Progress follows it


def batch_windows(
    step: Callable[..., Any], batches: Iterable[Batch], max_steps: int, every: int, *, first: int | None = None
) -> Iterator[Window]:
    """Group at most `max_steps` consecutive batches of equal shapes; ask for Progress after each `every` steps.

    Batches that are the same object are shared; others are stacked, under "batch". With `first`, the number of the
    first step, each step also gets its number.
    """
    pending: list[Batch] = []
    shape_key: Hashable = None
    capacity, until_report = max_steps, every
    for batch in batches:
        if pending and not _same_shapes(batch, pending, shape_key):
            yield _batch_window(step, pending, shape_key, capacity, first)
            first = None if first is None else first + len(pending)
            pending = []
        if not pending:
            shape_key, capacity = shape_key_of(batch), max_steps
        elif batch is not pending[0]:
            capacity = min(max_steps, _max_stacked(batch))
        pending.append(batch)
        until_report -= 1
        if not until_report or len(pending) >= capacity:
            yield _batch_window(step, pending, shape_key, capacity, first)._replace(reports=not until_report)
            first = None if first is None else first + len(pending)
            pending, until_report = [], until_report or every
    if pending:
        yield _batch_window(step, pending, shape_key, capacity, first)


def _same_shapes(batch: Batch, pending: list[Batch], shape_key: Hashable) -> bool:
    return batch is pending[0] or (shape_key is not None and shape_key_of(batch) == shape_key)


def _max_stacked(batch: Batch) -> int:
    """Return how many batches of this size can be stacked."""
    size = sum(leaf.nbytes for leaf in tree.leaves(batch) if isinstance(leaf, Tensor))
    return max(1, _MAX_STACKED_BYTES // max(size, 1))


def _batch_window(
    step: Callable[..., Any], pending: list[Batch], shape_key: Hashable, capacity: int, first: int | None
) -> Window:
    shared = all(batch is pending[0] for batch in pending)
    count = len(pending)

    def arguments(i: int) -> tuple[Any, Any]:
        return pending[i], {} if first is None else {"number": torch.tensor(first + i)}

    def stacked_arguments() -> tuple[Any, Any]:
        per_step: dict[str, Any] = {} if first is None else {"number": torch.arange(first, first + count)}
        if shared:
            return pending[0], per_step
        return (), per_step | {"batch": tree.map(lambda *leaves: torch.stack(leaves), *pending)}

    stackable = shared or (shape_key is not None and all(isinstance(leaf, Tensor) for leaf in tree.leaves(pending[0])))
    return Window(step, arguments, stacked_arguments, count, count, shape_key, stackable, count == capacity, False)


def shape_key_of(batch: Batch) -> Hashable:
    """Return a key that is equal for batches of equal shapes; None if a leaf is no tensor and not hashable."""
    leaves, structure = tree.flatten(batch)
    shape_key = (
        structure,
        *((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves),
    )
    try:
        hash(shape_key)
    except TypeError:
        return None
    return shape_key


def full_data_windows(
    step: Callable[..., Any], shared: Any, steps: int, every: int | None, device: torch.device, first: int = 0
) -> Iterator[Window]:
    """Give each step from number `first` on its number, and the same batch."""
    chunk = every or _even_chunk(steps, CHUNK)
    for start in range(first, steps, chunk):
        count = min(chunk, steps - start)

        def per_step(start: int = start, count: int = count) -> dict[str, Tensor]:
            return {"number": torch.arange(start, start + count, device=device)}

        window = _row_window(step, shared, per_step, count, rows=0, full_size=count == chunk)
        yield window._replace(reports=True)


def _even_chunk(count: int, max_steps: int) -> int:
    """Return a chunk size of at most `max_steps` that splits a run into almost equal chunks."""
    return count // -(-count // max_steps) if count else 1


def _row_window(
    step: Callable[..., Any],
    shared: Any,
    per_step: Callable[[], dict[str, Tensor]],
    iterations: int,
    *,
    rows: int,
    full_size: bool,
    per_epoch: int = 1,
) -> Window:
    """Make a window whose iterations take `rows` rows of the shared data; their numbers are drawn when it runs."""
    per_step = functools.cache(per_step)

    def arguments(i: int) -> tuple[Any, Any]:
        return shared, {name: values[i] for name, values in per_step().items()}

    return Window(
        step,
        arguments,
        lambda: (shared, per_step()),
        iterations,
        iterations * per_epoch,
        (rows, per_epoch),
        True,
        full_size,
        False,
    )


class Epochs(NamedTuple):
    """Minibatches of `size` rows, in a new order in each epoch; whole epochs can run as nested loops."""

    step: Callable[..., Any]
    epoch: Callable[..., Any]  # all steps of an epoch whose last batch is smaller, as one iteration
    shared: tuple[Tensor, ...]  # the data
    key: Key
    size: int

    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.shared[0])

    def windows(self, steps: int, every: int | None, *, nest_epochs: bool, first: int = 0) -> Iterator[Window]:
        """Split the steps from number `first` on into windows.

        `nest_epochs` makes epochs with a smaller last batch one iteration each.
        """
        per_epoch = -(-self.rows() // self.size)
        nest_epochs = nest_epochs and per_epoch * self.size != self.rows()
        iterations = (every or CHUNK) // per_epoch if nest_epochs else 0
        if every is None and iterations > 1:
            iterations = _even_chunk(steps // per_epoch, iterations) if steps >= per_epoch else 0
        chunk = every or (iterations * per_epoch if iterations > 1 else _even_chunk(steps, CHUNK))
        position = first
        while position < steps:
            end = min(position + chunk, steps)
            while position < end:
                window = self._next(position, end - position, iterations, chunk)
                position += window.steps
                yield window._replace(reports=position == end)

    def _next(self, number: int, capacity: int, iterations: int, chunk: int) -> Window:
        """Return the window that begins with step `number` and has at most `capacity` steps."""
        full_batches = self.rows() // self.size
        per_epoch = -(-self.rows() // self.size)
        epoch, position = divmod(number, per_epoch)
        if iterations > 1 and position == 0 and capacity >= iterations * per_epoch:
            return self._whole_epochs(epoch, iterations, per_epoch)
        if position == full_batches:
            return self._last_batch(number, epoch)
        count = capacity if full_batches == per_epoch else min(capacity, full_batches - position)
        full_size = count == (chunk if full_batches == per_epoch else min(chunk, full_batches))

        def per_step() -> dict[str, Tensor]:
            orders = self._orders(epoch, -(-(position + count) // per_epoch))
            batches = orders[:, : full_batches * self.size].reshape(-1, self.size)
            return {"number": self._numbers(number, count), "rows": batches[position : position + count]}

        return _row_window(self.step, self.shared, per_step, count, rows=self.size, full_size=full_size)

    def _whole_epochs(self, epoch: int, count: int, per_epoch: int) -> Window:
        def per_step() -> dict[str, Tensor]:
            numbers = self._numbers(epoch * per_epoch, count * per_epoch).view(count, per_epoch)
            return {"number": numbers, "rows": self._orders(epoch, count)}

        rows = self.rows()
        return _row_window(self.epoch, self.shared, per_step, count, rows=rows, full_size=True, per_epoch=per_epoch)

    def _last_batch(self, number: int, epoch: int) -> Window:
        start = self.rows() // self.size * self.size

        def per_step() -> dict[str, Tensor]:
            return {"number": self._numbers(number, 1), "rows": self._orders(epoch, 1)[:, start:]}

        return _row_window(self.step, self.shared, per_step, 1, rows=self.rows() - start, full_size=False)

    def _numbers(self, first: int, count: int) -> Tensor:
        return torch.arange(first, first + count, device=self.key.device)

    def _orders(self, epoch: int, count: int) -> Tensor:
        def order(number: Any) -> Tensor:
            return random.permutation(random.fold_in(self.key, number), self.rows())

        if count == 1:
            return order(epoch)[None].to(self.shared[0].device)
        return vmap(order)(self._numbers(epoch, count)).to(self.shared[0].device)

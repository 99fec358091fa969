"""Windows: consecutive steps that can run as one program, because their batches look alike."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key
from torchpure.transforms import vmap

Batch = tuple[Any, ...]
CHUNK = 1000  # steps of a program that nobody gave a number
_STACKED = 1 << 26  # bytes of batches that are copied to lie one behind the other


class Window(NamedTuple):
    """Steps, and what each is given: what is shared by all, and its own."""

    step: Callable[..., Any]
    one: Callable[[int], tuple[Any, Any]]  # shared and own of a turn
    together: Callable[[], tuple[Any, Any]]  # shared, and own of all turns stacked
    turns: int
    steps: int  # in all turns; a turn may be a whole epoch
    kind: Hashable  # windows of one kind have batches of equal shapes; None: of this one nothing is known
    alike: bool  # the turns can be stacked
    full: bool  # there will be more of as many turns, or these are the whole run
    told: bool  # progress is told after it


def listed(
    step: Callable[..., Any], batches: Iterable[Batch], most: int, every: int, *, numbers: bool = False
) -> Iterator[Window]:
    """Group at most so many consecutive batches of equal shapes, and have every so many steps told of.

    Batches that are one object are shared, others stacked, under "batch"; a step's number may be its own too.
    """
    held: list[Batch] = []
    first = 0 if numbers else None
    kind: Hashable = None
    room, left = most, every
    for batch in batches:
        if held and not _goes_on(batch, held, kind):
            yield _listed(step, held, kind, room, first)
            first = None if first is None else first + len(held)
            held = []
        if not held:
            kind, room = kind_of(batch), most
        elif batch is not held[0]:
            room = min(most, _room(batch))
        held.append(batch)
        left -= 1
        if not left or len(held) >= room:
            yield _listed(step, held, kind, room, first)._replace(told=not left)
            first = None if first is None else first + len(held)
            held, left = [], left or every
    if held:
        yield _listed(step, held, kind, room, first)


def _goes_on(batch: Batch, held: list[Batch], kind: Hashable) -> bool:
    return batch is held[0] or (kind is not None and kind_of(batch) == kind)


def _room(batch: Batch) -> int:
    """Return how many batches of this size may be stacked."""
    size = sum(leaf.nbytes for leaf in tree.leaves(batch) if isinstance(leaf, Tensor))
    return max(1, _STACKED // max(size, 1))


def _listed(step: Callable[..., Any], held: list[Batch], kind: Hashable, room: int, first: int | None) -> Window:
    shared = all(batch is held[0] for batch in held)
    count = len(held)

    def one(i: int) -> tuple[Any, Any]:
        return held[i], {} if first is None else {"number": torch.tensor(first + i)}

    def together() -> tuple[Any, Any]:
        own: dict[str, Any] = {} if first is None else {"number": torch.arange(first, first + count)}
        if shared:
            return held[0], own
        return (), own | {"batch": tree.map(lambda *leaves: torch.stack(leaves), *held)}

    alike = shared or (kind is not None and all(isinstance(leaf, Tensor) for leaf in tree.leaves(held[0])))
    return Window(step, one, together, count, count, kind, alike, count == room, False)


def kind_of(batch: Batch) -> Hashable:
    """Return what batches of equal shapes have in common; None where a leaf is no tensor and has no hash."""
    leaves, structure = tree.flatten(batch)
    kind = (
        structure,
        *((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves),
    )
    try:
        hash(kind)
    except TypeError:
        return None
    return kind


def numbered(
    step: Callable[..., Any], shared: Any, steps: int, every: int | None, device: torch.device
) -> Iterator[Window]:
    """Give each step its number as its own, and the same batch."""
    chunk = every or _even(steps, CHUNK)
    for first in range(0, steps, chunk):
        count = min(chunk, steps - first)
        own = {"number": torch.arange(first, first + count, device=device)}
        yield _rows(step, shared, own, full=count == chunk)._replace(told=True)


def _even(count: int, most: int) -> int:
    """Return a length of at most so many, of which a run consists with next to nothing left over."""
    return count // -(-count // most) if count else 1


def _rows(step: Callable[..., Any], shared: Any, own: dict[str, Tensor], *, full: bool, per: int = 1) -> Window:
    turns = len(own["number"])
    kind = tuple((name, rows.shape[1:]) for name, rows in own.items())

    def one(i: int) -> tuple[Any, Any]:
        return shared, {name: rows[i] for name, rows in own.items()}

    return Window(step, one, lambda: (shared, own), turns, turns * per, kind, True, full, False)


class Epochs(NamedTuple):
    """Minibatches of so many rows, in a new order each time round; whole epochs are one loop in another."""

    step: Callable[..., Any]
    epoch: Callable[..., Any]  # the steps of one epoch whose last batch is smaller, as one turn
    shared: tuple[Tensor, ...]  # the data
    key: Key
    size: int

    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.shared[0])

    def windows(self, steps: int, every: int | None, *, nested: bool) -> Iterator[Window]:
        """Split a run; where the last batch of an epoch is smaller, whole epochs are turns of their own if `nested`."""
        per = -(-self.rows() // self.size)
        nested = nested and per * self.size != self.rows()
        turns = (every or CHUNK) // per if nested else 0
        if every is None and turns > 1:
            turns = _even(steps // per, turns) if steps >= per else 0
        chunk = every or (turns * per if turns > 1 else _even(steps, CHUNK))
        at = 0
        while at < steps:
            end = min(at + chunk, steps)
            while at < end:
                window = self._next(at, end - at, turns, chunk)
                at += window.steps
                yield window._replace(told=at == end)

    def _next(self, at: int, room: int, turns: int, chunk: int) -> Window:
        per, whole = -(-self.rows() // self.size), self.rows() // self.size  # batches of an epoch; those of full size
        epoch, position = divmod(at, per)
        if turns > 1 and position == 0 and room >= turns * per:
            own = {"number": self._numbers(at, turns * per).view(turns, per), "rows": self._orders(epoch, turns)}
            return _rows(self.epoch, self.shared, own, full=True, per=per)
        if position == whole:
            own = {"number": self._numbers(at, 1), "rows": self._orders(epoch, 1)[:, position * self.size :]}
            return _rows(self.step, self.shared, own, full=False)
        count = room if whole == per else min(room, whole - position)
        orders = self._orders(epoch, -(-(position + count) // per))[:, : whole * self.size].reshape(-1, self.size)
        own = {"number": self._numbers(at, count), "rows": orders[position : position + count]}
        return _rows(self.step, self.shared, own, full=count == (chunk if whole == per else min(chunk, whole)))

    def _numbers(self, first: int, count: int) -> Tensor:
        return torch.arange(first, first + count, device=self.key.device)

    def _orders(self, epoch: int, count: int) -> Tensor:
        def order(number: Any) -> Tensor:
            return random.permutation(random.fold_in(self.key, number), self.rows())

        if count == 1:
            return order(epoch)[None].to(self.shared[0].device)
        return vmap(order)(self._numbers(epoch, count)).to(self.shared[0].device)

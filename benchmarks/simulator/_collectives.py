"""What a collective costs: messages one after another, bytes over the link, bytes that are added up.

The model is Hockney's (1994): a message of n bytes takes α + βn seconds. The algorithms are those of Thakur,
Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH" (2005). Each process sends and
receives at once.
"""

from typing import NamedTuple


class Link(NamedTuple):
    """The connection of a process with the others."""

    latency: float  # α: seconds of a message without data
    per_byte: float  # β: seconds of a byte on its way
    per_reduced_byte: float = 0.0  # γ: seconds to add a byte that has come to one's own


class Cost(NamedTuple):
    """What lies on the longest path of a collective."""

    messages: float  # one after another
    sent: float  # bytes
    reduced: float = 0.0  # bytes


def seconds(cost: Cost, link: Link) -> float:
    """Return α · messages + β · bytes + γ · reduced bytes."""
    return cost.messages * link.latency + cost.sent * link.per_byte + cost.reduced * link.per_reduced_byte


def together(*costs: Cost) -> Cost:
    """Return the cost of collectives that run one after another."""
    return Cost(*(sum(column) for column in zip(*costs, strict=True)))


def reduce_scatter(size: float, ranks: int) -> Cost:
    """Return the cost of a ring: each process ends with its part of the sum of tensors of `size` bytes."""
    return Cost(ranks - 1, size * (ranks - 1) / ranks, size * (ranks - 1) / ranks)


def all_gather(size: float, ranks: int) -> Cost:
    """Return the cost of a ring: each process has `size` bytes, and ends with those of all."""
    return Cost(ranks - 1, size * (ranks - 1))


def ring_all_reduce(size: float, ranks: int) -> Cost:
    """Return the cost of a ring that scatters the sum of tensors of `size` bytes, and gathers it.

    Law: it costs what `reduce_scatter` and `all_gather` of the parts cost together.
    """
    return together(reduce_scatter(size, ranks), all_gather(size / ranks, ranks))


def tree_all_reduce(size: float, ranks: int) -> Cost:
    """Return the cost of a binomial tree to one process, and back: few messages, all of them whole."""
    levels = _levels(ranks)
    return Cost(2 * levels, 2 * levels * size, levels * size)


def broadcast(size: float, ranks: int) -> Cost:
    """Return the cost of a binomial tree from one process."""
    return Cost(_levels(ranks), _levels(ranks) * size)


def all_to_all(size: float, ranks: int) -> Cost:
    """Return the cost of an exchange in pairs: each process has `size` bytes, an equal part of them for each one."""
    return Cost(ranks - 1, size * (ranks - 1) / ranks)


def ppermute(size: float, ranks: int) -> Cost:
    """Return the cost of one message from each process to another."""
    return Cost(1, size) if ranks > 1 else Cost(0, 0)


def _levels(ranks: int) -> int:
    return (ranks - 1).bit_length()

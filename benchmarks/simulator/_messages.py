"""Collectives message by message: who sends which block to whom in each round, what arrives, and when.

The closed forms of `_collectives.py` are tested against this. A block is a part of a tensor; its value is the set of
the processes whose parts it holds the sum of, so a schedule that adds a part twice, or none, is found.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ._collectives import Link

Holding = dict[int, frozenset[int]]  # block -> whose parts are in the sum
State = list[Holding]  # one for each process


class Message(NamedTuple):
    """Blocks that go from one process to another."""

    source: int
    target: int
    blocks: tuple[int, ...]
    adds: bool  # to what the target has; otherwise it replaces that


Rounds = list[list[Message]]  # messages of a round use what was there before it


def ring_reduce_scatter_rounds(ranks: int) -> Rounds:
    """Return the rounds after which process r has the whole sum of block r."""
    return [
        [Message(rank, (rank + 1) % ranks, ((rank - number - 1) % ranks,), adds=True) for rank in range(ranks)]
        for number in range(ranks - 1)
    ]


def ring_all_gather_rounds(ranks: int) -> Rounds:
    """Return the rounds after which all processes have the block r of process r."""
    return [
        [Message(rank, (rank + 1) % ranks, ((rank - number) % ranks,), adds=False) for rank in range(ranks)]
        for number in range(ranks - 1)
    ]


def ring_all_reduce_rounds(ranks: int) -> Rounds:
    """Return the rounds of both rings, one after the other."""
    return ring_reduce_scatter_rounds(ranks) + ring_all_gather_rounds(ranks)


def broadcast_rounds(ranks: int) -> Rounds:
    """Return the rounds after which all processes have the blocks of process 0: their number doubles in each."""
    every, rounds, have = tuple(range(ranks)), [], 1
    while have < ranks:
        rounds.append([Message(rank, rank + have, every, adds=False) for rank in range(min(have, ranks - have))])
        have *= 2
    return rounds


def tree_all_reduce_rounds(ranks: int) -> Rounds:
    """Return the rounds of a broadcast backwards, with sums, and then forwards."""
    down = broadcast_rounds(ranks)
    up = [[Message(one.target, one.source, one.blocks, adds=True) for one in messages] for messages in reversed(down)]
    return up + down


def all_to_all_rounds(ranks: int) -> Rounds:
    """Return the rounds of an exchange: block r · ranks + s goes from process r to process s."""
    return [
        [Message(rank, (rank + step) % ranks, (rank * ranks + (rank + step) % ranks,), False) for rank in range(ranks)]
        for step in range(1, ranks)
    ]


SCHEDULES: dict[str, Callable[[int], Rounds]] = {
    "reduce_scatter": ring_reduce_scatter_rounds,
    "all_gather": ring_all_gather_rounds,
    "ring_all_reduce": ring_all_reduce_rounds,
    "tree_all_reduce": tree_all_reduce_rounds,
    "broadcast": broadcast_rounds,
    "all_to_all": all_to_all_rounds,
}


def deliver(rounds: Rounds, state: Sequence[Holding]) -> State:
    """Return what each process has after all rounds.

    Raises:
        ValueError: a process sends what it has not, or a sum would hold a part twice.
    """
    now = [dict(holding) for holding in state]
    for messages in rounds:
        before = [dict(holding) for holding in now]
        for message in messages:
            for block in message.blocks:
                now[message.target][block] = _arrived(message, block, before, now[message.target])
    return now


def _arrived(message: Message, block: int, before: State, target: Holding) -> frozenset[int]:
    if block not in before[message.source]:
        raise ValueError(f"deliver: process {message.source} sends block {block}, which it has not")
    value = before[message.source][block]
    if not message.adds:
        return value
    own = target.get(block, frozenset[int]())
    if own & value:
        raise ValueError(f"deliver: the parts of {sorted(own & value)} come to process {message.target} twice")
    return own | value


def finish(rounds: Rounds, block_bytes: float, link: Link, begin: Sequence[float]) -> list[float]:
    """Return when each process has ended, if process r begins at `begin[r]`.

    A message begins when its source and its target have done their earlier rounds. A process sends and receives at
    once, then adds. No process waits for those that it exchanges nothing with.
    """
    ready = list(begin)
    for messages in rounds:
        now = list(ready)
        for source, target, blocks, adds in messages:
            size = block_bytes * len(blocks)
            arrived = max(ready[source], ready[target]) + link.latency + size * link.per_byte
            now[source] = max(now[source], arrived)
            now[target] = max(now[target], arrived + size * link.per_reduced_byte * adds)
        ready = now
    return ready

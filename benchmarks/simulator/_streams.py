"""Two things at once: work on streams, each of which runs its own in order, and waits for work of others."""

from collections.abc import Sequence
from typing import NamedTuple


class Work(NamedTuple):
    """One piece of work of a stream."""

    stream: str
    seconds: float
    after: tuple[int, ...] = ()  # the numbers of earlier pieces that must have ended


def run_streams(works: Sequence[Work]) -> list[float]:
    """Return when each piece ends.

    Law: the last end is at least the sum of each stream, and at most the sum of all.

    Raises:
        ValueError: a piece waits for one that comes later.
    """
    free: dict[str, float] = {}
    ends: list[float] = []
    for number, work in enumerate(works):
        if any(earlier >= number for earlier in work.after):
            raise ValueError(f"run_streams: work {number} waits for {list(work.after)}, which must come before it")
        start = max([free.get(work.stream, 0.0), *(ends[earlier] for earlier in work.after)])
        ends.append(start + work.seconds)
        free[work.stream] = ends[-1]
    return ends

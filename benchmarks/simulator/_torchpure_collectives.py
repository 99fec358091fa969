"""What the collectives of torchpure.parallel and of torch's gloo cost, in the terms of `_collectives.py`.

Each of ours begins with a round: an `all_gather` of short messages in which all processes say what they are about to
do. A small tensor travels in them. `parallel/messages/_rounds.py` has the sizes.
"""

from collections.abc import Callable

from ._collectives import (
    Cost,
    Link,
    all_gather,
    all_to_all,
    broadcast,
    ring_all_reduce,
    seconds,
    together,
)

HEADER, MAX_ROOM, ROOM_OF_GROUP = 256, 4096, 65536  # bytes

Formula = Callable[[float, int], Cost]


def room(ranks: int) -> int:
    """Return the bytes of data that fit into a message of a round."""
    return min(MAX_ROOM, ROOM_OF_GROUP // ranks // 16 * 16)


def agreement(ranks: int) -> Cost:
    """Return the cost of a round."""
    return all_gather(HEADER + room(ranks), ranks)


def _ours(send: Formula) -> Formula:
    def cost(size: float, ranks: int) -> Cost:
        if ranks == 1:
            return Cost(0, 0)
        return agreement(ranks) if size <= room(ranks) else together(agreement(ranks), send(size, ranks))

    return cost


def _exchange_and_add(size: float, ranks: int) -> Cost:
    """Return the cost of an exchange, after which each process adds the parts that came."""
    return together(all_to_all(size, ranks), Cost(0, 0, size * (ranks - 1) / ranks))


def _one_of_many(size: float, ranks: int) -> Cost:
    """Return the cost of an exchange in which each process has data for one other: the other messages are empty."""
    return Cost(ranks - 1, size)


TORCHS: dict[str, Formula] = {
    "all_reduce": ring_all_reduce,
    "all_gather": all_gather,
    "broadcast": broadcast,
    "all_to_all": all_to_all,
}
OURS: dict[str, Formula] = {
    "psum": _ours(ring_all_reduce),
    "all_gather": _ours(all_gather),
    "psum_scatter": _ours(_exchange_and_add),
    "all_to_all": _ours(all_to_all),
    "ppermute": _ours(_one_of_many),
}


def data_parallel_seconds(
    fixed: float, per_row: float, rows: int, size: float, ranks: int, cores: int, link: Link, call: float
) -> float:
    """Return the time of a step whose gradients of `size` bytes are summed by `psum` after it, on one thread each.

    `fixed` and `per_row` are those of one process. More processes than cores share the cores.
    """
    compute = (fixed + per_row * rows / ranks) * max(1.0, ranks / cores)
    return compute + (call + seconds(OURS["psum"](size, ranks), link) if ranks > 1 else 0.0)

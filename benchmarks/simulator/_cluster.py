"""Collectives on nodes of several GPUs: fast links inside of a node, one network card for each GPU between nodes."""

from typing import NamedTuple

from ._collectives import Link, all_gather, reduce_scatter, seconds


class Gpu(NamedTuple):
    """One device."""

    flops: float  # a second, in products of matrices, as they are reached in a layer
    peak_flops: float  # a second, of the data sheet
    memory: float  # bytes
    memory_per_second: float  # bytes read or written


class Cluster(NamedTuple):
    """Nodes of equal GPUs."""

    gpu: Gpu
    node: int  # GPUs of a node
    inside: Link  # of a GPU with the others of its node
    between: Link  # of a GPU with those of other nodes


class Spread(NamedTuple):
    """How the processes of a group lie: so many in each node, on so many nodes."""

    inside: int
    nodes: int

    @property
    def ranks(self) -> int:
        """The processes of the group."""
        return self.inside * self.nodes


def reduce_scatter_seconds(size: float, spread: Spread, cluster: Cluster) -> float:
    """Return the time of a ring in each node, then of rings across nodes, one for each GPU of a node.

    Law: the slow links carry `size / spread.inside` bytes, not `size`.
    """
    part = size / spread.inside
    within = seconds(reduce_scatter(size, spread.inside), cluster.inside)
    return within + seconds(reduce_scatter(part, spread.nodes), cluster.between)


def all_gather_seconds(size: float, spread: Spread, cluster: Cluster) -> float:
    """Return the time until all processes have `size` bytes, of which each had its share."""
    between = seconds(all_gather(size / spread.ranks, spread.nodes), cluster.between)
    return between + seconds(all_gather(size / spread.inside, spread.inside), cluster.inside)


def all_reduce_seconds(size: float, spread: Spread, cluster: Cluster) -> float:
    """Return the time of a sum that is scattered and gathered."""
    return reduce_scatter_seconds(size, spread, cluster) + all_gather_seconds(size, spread, cluster)

"""The time of a training step: layers on one stream, the communication of gradients and parameters on another.

Sequences run one at a time. The layers of ZeRO-3 are gathered one ahead; sums over the tensor group stand in the way of
the next product, and are not hidden. Gradients are exchanged in the backward pass of the last sequence.
"""

from typing import NamedTuple

from ._cluster import Cluster, Spread, all_gather_seconds, all_reduce_seconds, reduce_scatter_seconds
from ._placements import GRADIENT, PARAMETER, Placement, memory
from ._streams import Work, run_streams
from ._transformer import Transformer, head_flops, layer_flops, layer_parameters, parameters, step_flops


class Step(NamedTuple):
    """One step of a placement."""

    seconds: float
    compute: float  # seconds of products
    tensor: float  # seconds of sums over the tensor group
    exposed: float  # seconds that wait for gradients and parameters
    optimizer: float  # seconds of the update
    utilisation: float  # operations over what the data sheet promises
    memory: float  # bytes of a GPU


class Parts(NamedTuple):
    """The seconds of what a step consists of."""

    forward: float  # of a layer and a sequence
    head: float  # of logits, forwards
    tensor: float  # of one sum over the tensor group
    gather: float  # of a layer's parameters
    exchange: float  # of a layer's gradients


def step(model: Transformer, placement: Placement, cluster: Cluster, batch: int) -> Step:
    """Return the step of a batch of so many sequences.

    Raises:
        ValueError: the batch or the node cannot be divided so.
    """
    if batch % placement.data or (cluster.node % placement.tensor and placement.tensor % cluster.node):
        raise ValueError(
            f"step: {placement.data} groups must divide a batch of {batch}, and {placement.tensor} GPUs of a layer a "
            f"node of {cluster.node}"
        )
    parts = parts_of(model, placement, cluster)
    sequences = batch // placement.data
    passes = model.layers * (4 if placement.remat else 3)
    compute = sequences * (passes * parts.forward + 3 * parts.head)
    tensor = sequences * model.layers * (6 if placement.remat else 4) * parts.tensor
    optimizer = _optimizer(model, placement, cluster)
    total = _both_passes(model, placement, parts, sequences) + optimizer + _gather_after(model, placement, cluster)
    peak = placement.gpus * cluster.gpu.peak_flops
    exposed = max(0.0, total - compute - tensor - optimizer)  # at least the error of rounding
    utilisation = step_flops(model, batch) / (total * peak)
    return Step(total, compute, tensor, exposed, optimizer, utilisation, memory(model, placement))


def _both_passes(model: Transformer, placement: Placement, parts: Parts, sequences: int) -> float:
    """Return the seconds of forward and backward passes. From the third sequence on, each adds the same time."""

    def until_end(count: int) -> float:
        works = [work for number in range(count) for work in _sequence(model, placement, parts, number == count - 1)]
        return max(run_streams(_numbered(works)))

    few = min(sequences, 4)
    more = (sequences - few) * (until_end(4) - until_end(3)) if sequences > few else 0.0
    return until_end(few) + more


def spreads(placement: Placement, cluster: Cluster) -> tuple[Spread, Spread]:
    """Return how the tensor group and the data group lie: neighbours divide layers."""
    tensor = Spread(min(placement.tensor, cluster.node), max(1, placement.tensor // cluster.node))
    inside = min(placement.data, max(1, cluster.node // placement.tensor))
    return tensor, Spread(inside, placement.data // inside)


def parts_of(model: Transformer, placement: Placement, cluster: Cluster) -> Parts:
    """Return the seconds of a layer's parts."""
    tensor, data = spreads(placement, cluster)
    own = layer_parameters(model) / placement.tensor
    exchange = all_reduce_seconds if placement.zero == 0 else reduce_scatter_seconds
    flops = cluster.gpu.flops * placement.tensor
    return Parts(
        forward=layer_flops(model) / flops,
        head=head_flops(model) / flops,
        tensor=all_reduce_seconds(2 * model.sequence * model.width, tensor, cluster),
        gather=all_gather_seconds(PARAMETER * own, data, cluster) if placement.zero == 3 else 0.0,
        exchange=exchange(GRADIENT * own, data, cluster),
    )


def _sequence(model: Transformer, placement: Placement, parts: Parts, last: bool) -> list[tuple[str, float]]:
    """Return what a sequence runs, in order: a layer, the gather of the one after the next, an exchange."""
    forward = parts.forward + 2 * parts.tensor
    backward = 2 * parts.forward + 2 * parts.tensor + (forward if placement.remat else 0.0)
    gathers = [("gather", parts.gather)] * (placement.zero == 3)
    # ZeRO-2 and 3 keep no whole gradients: they exchange those of each sequence
    exchanges = [("exchange", parts.exchange)] * (last or placement.zero >= 2)
    ahead = [*gathers, ("layer", forward)] * model.layers
    back = [("layer", backward), *gathers, *exchanges] * (model.layers - 1)  # the next layer comes before the sum
    return [*ahead, ("layer", 3 * parts.head), *gathers, *back, ("layer", backward), *exchanges]


def _numbered(works: list[tuple[str, float]]) -> list[Work]:
    """Add what each piece waits for: a layer for its gather, a gather for the layer before the last one."""
    numbered: list[Work] = []
    layers: list[int] = []
    gather = -1
    for kind, length in works:
        number = len(numbered)
        if kind == "gather":
            numbered.append(Work("network", length, tuple(layers[-2:-1])))
            gather = number
        elif kind == "exchange":
            numbered.append(Work("network", length, tuple(layers[-1:])))
        else:
            numbered.append(Work("products", length, (gather,) if gather >= 0 else ()))
            layers.append(number)
    return numbered


def _optimizer(model: Transformer, placement: Placement, cluster: Cluster) -> float:
    """Return the seconds of Adam: it reads 16 bytes for each parameter that it updates, and writes 14."""
    shards = placement.tensor * (placement.data if placement.zero else 1)
    return 30 * parameters(model) / shards / cluster.gpu.memory_per_second


def _gather_after(model: Transformer, placement: Placement, cluster: Cluster) -> float:
    """Return the seconds in which ZeRO-1 and 2 gather the new parameters."""
    if placement.zero not in (1, 2):
        return 0.0
    _, data = spreads(placement, cluster)
    return all_gather_seconds(PARAMETER * parameters(model) / placement.tensor, data, cluster)


def what_breaks(model: Transformer, placement: Placement, cluster: Cluster, batch: int) -> str:
    """Say what stops a placement: "memory", "batch", or "" if it runs."""
    if placement.data > batch:
        return "batch"
    return "memory" if memory(model, placement) > cluster.gpu.memory else ""

"""A model of many devices: collectives, the step of a transformer, and a sweep, in seconds and bytes, on paper."""

from ._cluster import Cluster, Gpu, Spread, all_gather_seconds, all_reduce_seconds, reduce_scatter_seconds
from ._collectives import (
    Cost,
    Link,
    all_gather,
    all_to_all,
    broadcast,
    ppermute,
    reduce_scatter,
    ring_all_reduce,
    seconds,
    together,
    tree_all_reduce,
)
from ._failures import checkpoint_interval, hours_between_failures, lost_share
from ._fit import fit_nonnegative
from ._messages import SCHEDULES, Message, deliver, finish
from ._placements import Placement, activation_bytes, memory, shard_bytes, state_bytes
from ._step import Step, step, what_breaks
from ._streams import Work, run_streams
from ._sweep import Scheduler, Timeline, Worker, equal_tasks_seconds, simulate_sweep
from ._torchpure_collectives import HEADER, MAX_ROOM, OURS, ROOM_OF_GROUP, TORCHS, agreement, data_parallel_seconds
from ._transformer import Transformer, layer_flops, layer_parameters, parameters

__all__ = [
    "HEADER",
    "MAX_ROOM",
    "OURS",
    "ROOM_OF_GROUP",
    "SCHEDULES",
    "TORCHS",
    "Cluster",
    "Cost",
    "Gpu",
    "Link",
    "Message",
    "Placement",
    "Scheduler",
    "Spread",
    "Step",
    "Timeline",
    "Transformer",
    "Work",
    "Worker",
    "activation_bytes",
    "agreement",
    "all_gather",
    "all_gather_seconds",
    "all_reduce_seconds",
    "all_to_all",
    "broadcast",
    "checkpoint_interval",
    "data_parallel_seconds",
    "deliver",
    "equal_tasks_seconds",
    "finish",
    "fit_nonnegative",
    "hours_between_failures",
    "layer_flops",
    "layer_parameters",
    "lost_share",
    "memory",
    "parameters",
    "ppermute",
    "reduce_scatter",
    "reduce_scatter_seconds",
    "ring_all_reduce",
    "run_streams",
    "seconds",
    "shard_bytes",
    "simulate_sweep",
    "state_bytes",
    "step",
    "together",
    "tree_all_reduce",
    "what_breaks",
]

"""The tables of docs/scale-model.md that follow from assumed constants alone."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch

import torchpure as tp

from . import simulator as on
from .simulator import Placement, Transformer, Worker

GPUS = (8, 32, 128, 512, 1024)
PLACEMENTS: dict[str, Callable[[int], Placement]] = {
    "replicated": lambda n: Placement(n, remat=True),
    "ZeRO-1": lambda n: Placement(n, zero=1, remat=True),
    "ZeRO-2": lambda n: Placement(n, zero=2, remat=True),
    "ZeRO-3": lambda n: Placement(n, zero=3, remat=True),
    "tensor over all": lambda n: Placement(1, tensor=n, remat=True),
    "tensor 8, replicated": lambda n: Placement(n // 8, tensor=8, remat=True),
    "tensor 8, ZeRO-1": lambda n: Placement(n // 8, tensor=8, zero=1, remat=True),
    "tensor 8, ZeRO-3": lambda n: Placement(n // 8, tensor=8, zero=3, remat=True),
}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of a page."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def steps(model: Transformer) -> str:
    """Return seconds, share of the peak and memory of each placement and number of GPUs."""
    rows = [[name, *(_cell(model, make(gpus)) for gpus in GPUS)] for name, make in PLACEMENTS.items()]
    return markdown([f"{model.name} parameters", *(f"{gpus:,} GPUs" for gpus in GPUS)], rows)


def _cell(model: Transformer, placement: Placement) -> str:
    held = on.memory(model, placement) / 1e9
    if on.what_breaks(model, placement, on.H100, on.BATCH) == "memory":
        return f"memory: {held:,.0f} GB"
    made = on.step(model, placement, on.H100, on.BATCH)
    return f"{short(made.seconds)} s, {percent(made.utilisation)}, {held:.0f} GB"


def shares(gpus: int) -> str:
    """Return what the time of a step consists of, for each model and placement that fits."""
    rows = []
    for model in on.MODELS:
        for name, make in PLACEMENTS.items():
            placement = make(gpus)
            if not on.what_breaks(model, placement, on.H100, on.BATCH):
                made = on.step(model, placement, on.H100, on.BATCH)
                parts = (made.compute, made.tensor, made.exposed, made.optimizer)
                rows.append([model.name, name, *(percent(part / made.seconds) for part in parts)])
    return markdown(["parameters", "placement", "products", "sums of tensors", "gradients, parameters", "Adam"], rows)


def collectives() -> str:
    """Return the time of a sum of 1 KiB, 1 MiB and 1 GiB by ring, by tree and on two levels."""
    rows = []
    for size, label in ((2.0**10, "1 KiB"), (2.0**20, "1 MiB"), (2.0**30, "1 GiB")):
        for ranks in (8, 64, 1024):
            flat = on.NVLINK if ranks == 8 else on.INFINIBAND
            ring, tree = (on.seconds(f(size, ranks), flat) for f in (on.ring_all_reduce, on.tree_all_reduce))
            levels = on.all_reduce_seconds(size, on.Spread(8, ranks // 8), on.H100)
            rows.append([label, f"{ranks:,}", *(f"{short(1e3 * value)}" for value in (ring, tree, levels))])
    return markdown(["sum of", "GPUs", "one ring, ms", "one tree, ms", "ring in and across nodes, ms"], rows)


def rounds() -> str:
    """Return what the round before each collective of ours costs on many processes."""
    rows = []
    for ranks in (2, 8, 64, 256, 1024):
        message = 256 + on.room(ranks)
        taken = [on.seconds(cost, on.ETHERNET) for cost in (on.agreement(ranks), on.ring_all_reduce(1e6, ranks))]
        sizes = [f"{message:,}", f"{message * ranks / 1024:,.0f}"]
        rows.append([f"{ranks:,}", *sizes, *(short(1e3 * value) for value in taken), f"{ranks - 1:,}"])
    head = [
        "processes",
        "bytes of a message",
        "KiB that come in",
        "round, ms",
        "sum of 1 MB, ms",
        "connections a group",
    ]
    return markdown(head, rows)


def sweep() -> str:
    """Return the time of a million members on a thousand workers, under what can go wrong."""
    members, workers = 1_000_000, 1_000
    rows = []
    for chunk in (1, 16, 64, 512, 4096):
        count = math.ceil(members / chunk)
        ideal = members * MEMBER_SECONDS / workers
        cells = [_sweep_seconds(count, chunk * MEMBER_SECONDS, case) for case in SWEEPS.values()]
        rows.append([f"{chunk:,}", f"{count:,}", *(f"{value / ideal:.2f}" for value in cells)])
    return markdown(["members of a task", "tasks", *SWEEPS], rows)


MEMBER_SECONDS = 0.5
SWEEPS: dict[str, tuple[on.Scheduler, Callable[[int], list[Worker]]]] = {
    "nothing wrong": (on.Scheduler(), lambda n: [Worker()] * n),
    "1 ms a task": (on.CLUSTER_SCHEDULER, lambda n: [Worker()] * n),
    "30 s to start": (on.CLUSTER_SCHEDULER, lambda n: [Worker(start=30.0)] * n),
    "2% at a third of the speed": (on.CLUSTER_SCHEDULER, lambda n: _slow(n, 0.02, 3.0)),
    "5% are lost, dask": (on.CLUSTER_SCHEDULER, lambda n: _lost(n, 0.05)),
    "5 are lost, one pool": (on.CLUSTER_SCHEDULER._replace(breaks_pool=True), lambda n: _lost(n, 0.005)),
}


def _slow(count: int, share: float, slowness: float) -> list[Worker]:
    return [Worker(slowness=slowness if number < share * count else 1.0) for number in range(count)]


def _lost(count: int, share: float) -> list[Worker]:
    times = tp.random.uniform(tp.random.key(0), (count,), dtype=torch.float64) * 1_000_000 * MEMBER_SECONDS / count
    return [Worker(lost_at=time) if number < share * count else Worker() for number, time in enumerate(times.tolist())]


def _sweep_seconds(tasks: int, length: float, case: tuple[on.Scheduler, Callable[[int], list[Worker]]]) -> float:
    scheduler, workers = case
    return on.simulate_sweep([length] * tasks, workers(1_000), scheduler).seconds


def failures() -> str:
    """Return how often a program of many GPUs fails, and what it loses with checkpoints at the best interval."""
    rows = []
    for gpus in (8, 64, 1024, 16384):
        between = on.hours_between_failures(on.GPU_HOURS_BETWEEN_FAILURES, gpus)
        interval = on.checkpoint_interval(1 / 60, between)
        lost = on.lost_share(1 / 60, 10 / 60, between, interval)
        rows.append([f"{gpus:,}", f"{between:,.1f}", short(interval), f"{lost:.1%}"])
    return markdown(["GPUs", "hours between failures", "hours between checkpoints", "time that is lost"], rows)


def percent(share: float) -> str:
    """Format a share."""
    return "under 1%" if 0 < share < 0.005 else f"{share:.0%}"


def short(value: float) -> str:
    """Format a number with three digits and no exponent."""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


TABLES: dict[str, Callable[[], str]] = {
    "collectives": collectives,
    **{f"steps of {model.name}": lambda model=model: steps(model) for model in on.MODELS},
    "shares": lambda: shares(1024),
    "rounds": rounds,
    "sweep": sweep,
    "failures": failures,
}

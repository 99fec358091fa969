"""Measurements for scale_model: collectives and data-parallel steps on gloo processes, and tasks of an executor.

`torchrun` starts this file; the first process writes what it measured to the path that it was given. All processes run
the same numbers of collectives. Of short bursts the fastest counts: what slows a burst down is another program.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

import torchpure as tp
from torchpure.train.executors import LocalWorkers, Task, run_tasks

SIZES = tuple(2**power for power in range(10, 23, 2))  # bytes of a process's tensor
WIDTHS = (64, 256, 256, 10)
ROWS = (128, 512)
Measured = dict[str, dict[str, float]]  # collective or rows -> size -> seconds, the least of the bursts
Params = list[Tensor]


def processes(count: int) -> Measured:
    """Start so many processes, and return what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "measured.json")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        subprocess.run([*command, "-m", "benchmarks._scale_measure", str(path)], check=True)
        return json.loads(path.read_text())


def tasks(workers: int, lengths: list[float]) -> float:
    """Return the seconds of sleeping tasks on so many processes, which are there before."""
    with LocalWorkers(workers) as executor:
        there: set[int] = set()
        while len(there) < workers:
            there |= {*_run(executor, [0.1] * workers)}
        begun = time.perf_counter()
        _run(executor, lengths)
        return time.perf_counter() - begun


def _run(executor: LocalWorkers, lengths: list[float]) -> list[int]:
    work = [Task(f"task {number}", (length,), {}) for number, length in enumerate(lengths)]
    return [process for _, process in run_tasks("scale_model", executor, sleep, work)]


def sleep(length: float) -> int:
    """Sleep, and return the number of the process."""
    time.sleep(length)
    return os.getpid()


def _torchs(size: int, ranks: int) -> dict[str, Callable[[], object]]:
    leaf = torch.ones(size // 4)
    rows, received = [torch.empty_like(leaf) for _ in range(ranks)], torch.empty_like(leaf)
    return {
        "torch all_reduce": lambda: dist.all_reduce(leaf),
        "torch all_gather": lambda: dist.all_gather(rows, leaf),
        "torch broadcast": lambda: dist.broadcast(leaf, 0),
        "torch all_to_all": lambda: dist.all_to_all_single(received, leaf),
    }


def _ours(size: int, ranks: int) -> dict[str, Callable[[], float]]:
    mesh = tp.make_mesh((ranks,), ("i",))
    ring = [(rank, (rank + 1) % ranks) for rank in range(ranks)]
    leaf = torch.ones(ranks, size // 4 // ranks)
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "psum": lambda x: tp.psum(x, "i"),
        "all_gather": lambda x: tp.all_gather(x, "i"),
        "psum_scatter": lambda x: tp.psum_scatter(x, "i"),
        "all_to_all": lambda x: tp.all_to_all(x, "i", 0, 0),
        "ppermute": lambda x: tp.ppermute(x, "i", ring),
    }
    return {f"tp {name}": lambda call=call: _inside(mesh, call, leaf) for name, call in calls.items()}


def _inside(mesh: DeviceMesh, call: Callable[[Tensor], Tensor], leaf: Tensor) -> float:
    """Return the seconds of a collective inside of shard_map, whose own checks are not in them."""
    spent: list[float] = []

    def local(x: Tensor) -> Tensor:
        begun = time.perf_counter()
        for _ in range(_count(x.nbytes)):
            call(x)
        spent.append((time.perf_counter() - begun) / _count(x.nbytes))
        return x

    tp.shard_map(local, mesh, tp.P(), tp.P(), check=False)(leaf)
    return spent[-1]


def _count(size: int) -> int:
    """Return the calls of a burst."""
    return 5 if size <= 2**16 else 3


def _bursts(size: int) -> int:
    return 50 if size <= 2**16 else 25


def _burst(call: Callable[[], object], size: int) -> float:
    dist.barrier()
    begun = time.perf_counter()
    for _ in range(_count(size)):
        call()
    return (time.perf_counter() - begun) / _count(size)


def _collectives(ranks: int) -> Measured:
    found: Measured = {}
    for size in SIZES:
        torchs, ours = _torchs(size, ranks), _ours(size, ranks)
        bursts: dict[str, Callable[[], float]] = {
            name: partial(_burst, call, size) for name, call in torchs.items()
        } | ours
        taken: dict[str, list[float]] = {name: [] for name in bursts}
        for _ in range(_bursts(size)):
            for name, burst in bursts.items():
                dist.barrier()
                taken[name].append(burst())
        for name, values in taken.items():
            found.setdefault(name, {})[str(size)] = min(values)
    return found


def loss(weights: Params, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean square error of a network with tanh."""
    for weight in weights[:-1]:
        x = torch.tanh(x @ weight)
    return ((x @ weights[-1] - y) ** 2).mean()


def _steps(ranks: int) -> dict[str, float]:
    mesh = tp.make_mesh((ranks,), ("data",))
    keys = tp.random.split(tp.random.key(0), len(WIDTHS) + 1)
    weights = [tp.random.normal(keys[n], shape) / shape[0] ** 0.5 for n, shape in enumerate(pairwise(WIDTHS))]

    def local(weights: Params, x: Tensor, y: Tensor) -> Params:
        return tp.pmean(tp.grad(loss)(weights, x, y), "data")

    specs = (tp.P(), tp.P("data"), tp.P("data"))
    step = tp.shard_map(tp.jit(local), mesh, specs, tp.P(), check=False)
    found = {}
    for rows in ROWS:
        x, y = tp.random.normal(keys[-2], (rows, WIDTHS[0])), tp.random.normal(keys[-1], (rows, WIDTHS[-1]))
        arguments = tp.device_put((weights, x, y), mesh, specs)
        step(*arguments)
        taken = [_burst(lambda arguments=arguments: step(*arguments), 2**21) for _ in range(60)]
        found[str(rows)] = min(taken)
    return found


def _sockets() -> int:
    """Return the sockets that this process has open, on Linux."""
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(link.startswith("socket:") for link in links)


def main() -> None:
    """Measure, and write a file."""
    torch.set_num_threads(1)
    tp.make_mesh((-1,), ("i",))
    ranks = dist.get_world_size()
    measured = {"sockets": {"1 group": float(_sockets())}} | _collectives(ranks) | {"step": _steps(ranks)}
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(measured))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

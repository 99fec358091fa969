"""A training step on two processes: data parallel against DDP, and ZeRO-1 against torch's ZeroRedundancyOptimizer.

`torchrun` starts this file on two processes. The first one measures, and tells the second which program to run, and how
often. The memory of the state of Adam is compared with half of what one process would keep.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import torchpure as tp
from torchpure import tree

from ._harness import report, times

THREADS = 2
FIGURE = "scale_train"
PROCESSES, ROWS, WIDTHS = 2, 512, (64, 256, 256, 10)
PLAIN, ZERO = "torchpure", "torchpure, ZeRO-1"
DDP, SHARDED = "DDP, torch.optim", "DDP, ZeroRedundancyOptimizer"
SETTINGS = {
    PLAIN: "shard_map(jit(value_and_grad)), tp.optim.adam; gloo, one thread each",
    ZERO: "the same, with the state in two parts",
    DDP: "DistributedDataParallel, torch.optim.Adam(foreach=True)",
    SHARDED: "DistributedDataParallel, ZeroRedundancyOptimizer(Adam)",
}


def main() -> None:
    """Start the processes, and measure."""
    if "RANK" in os.environ:
        _measure()
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    subprocess.run([*command, "-m", "benchmarks.scale_train"], check=True)


def _module() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(WIDTHS)]
    return nn.Sequential(*layers)


def _rows() -> tuple[Tensor, Tensor]:
    key, rank, part = tp.random.key(0), dist.get_rank(), ROWS // PROCESSES
    x = tp.random.normal(key, (ROWS, WIDTHS[0]))
    y = x[:, : WIDTHS[-1]].sin()
    return x[rank * part : (rank + 1) * part].clone(), y[rank * part : (rank + 1) * part].clone()


def _ours(is_split: bool) -> tuple[Callable[[], Any], Callable[[], float], int]:
    mesh, net, optimizer = tp.make_mesh((PROCESSES,), ("data",)), tp.functional(_module()), tp.optim.adam(1e-3)
    x, y = _rows()
    evaluate = tp.jit(tp.value_and_grad(lambda params, x, y: ((net(params, x) - y) ** 2).mean()))

    def local(params: Any) -> Any:
        return tp.pmean(evaluate(params, x, y), "data")

    step = tp.shard_map(local, mesh, tp.P(), tp.P(), check=False)
    params = net.params
    state = optimizer.init(params)
    if is_split:
        state = tp.device_put(state, mesh, tp.parallel.partition_specs(state, mesh, "data"))
    carry: list[Any] = [params, state, None]

    def run() -> None:
        value, grads = step(carry[0])
        params, state = optimizer.step(grads, carry[1], carry[0])
        carry[:] = params, state, value

    parts = [leaf.to_local() if hasattr(leaf, "to_local") else leaf for leaf in tree.leaves(state)]
    return run, lambda: float(carry[2]), sum(part.nbytes for part in parts)


def _theirs(is_split: bool) -> tuple[Callable[[], Any], Callable[[], float], int]:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    module = DistributedDataParallel(_module())
    x, y = _rows()
    if is_split:
        optimizer: Any = ZeroRedundancyOptimizer(module.parameters(), torch.optim.Adam, lr=1e-3)
    else:
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, foreach=True)
    last: list[float] = [0.0]

    def run() -> None:
        optimizer.zero_grad()
        loss = ((module(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        last[0] = loss.detach()

    return run, lambda: float(last[0]), 0


def _programs() -> dict[str, tuple[Callable[[], Any], Callable[[], float], int]]:
    return {PLAIN: _ours(False), ZERO: _ours(True), DDP: _theirs(False), SHARDED: _theirs(True)}


def _measure() -> None:
    torch.set_num_threads(1)
    tp.make_mesh((PROCESSES,), ("data",))
    programs = _programs()
    for run, *_ in programs.values():
        for _ in range(3):
            run()
    names, order = list(programs), torch.zeros(2, dtype=torch.int64)

    def steps(name: str) -> Callable[[int], None]:
        def run(count: int) -> None:
            dist.broadcast(order.copy_(torch.tensor([names.index(name), count])), 0)
            for _ in range(count):
                programs[name][0]()

        return run

    if dist.get_rank():
        while not dist.broadcast(order, 0) and int(order[1]):
            for _ in range(int(order[1])):
                programs[names[int(order[0])]][0]()
    else:
        rows = times({name: steps(name) for name in names}, 100)
        dist.broadcast(order.zero_(), 0)
        _print(rows, programs[PLAIN][2], programs[ZERO][2])
    dist.barrier()
    dist.destroy_process_group()


def _print(rows: dict[str, Any], whole: int, part: int) -> None:
    title = f"{FIGURE}: a step over {ROWS} rows, widths {WIDTHS}, on {PROCESSES} processes"
    report(title, {name: rows[name] for name in (PLAIN, DDP)}, PLAIN, {DDP: 1.0}, SETTINGS)
    report(f"{title}, ZeRO-1", {name: rows[name] for name in (ZERO, SHARDED)}, ZERO, {SHARDED: 1.0}, SETTINGS)
    ratio = part / (whole / PROCESSES)
    print(f"{FIGURE}: {part:,} bytes of state a process, {ratio:.3f} of half of {whole:,}; bar 1.05")
    if ratio > 1.05:
        raise SystemExit(f"{FIGURE}: the state of a process is too large")


if __name__ == "__main__":
    main()

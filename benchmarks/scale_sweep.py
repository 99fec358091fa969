"""1,024 members in two processes, and on two groups of cores, against one process on one thread.

Members are trainings of a network of two hidden layers; a repeat runs all programs in turn, warm, in one process that
keeps its workers. Only ratios of one run count, and on a busy machine they are larger than on an idle one.
"""

import time
from functools import partial

import torch
from torch import Tensor, nn

import torchpure as tp
from torchpure.train.executors import LocalWorkers

from ._harness import REPEATS, report

MEMBERS, STEPS = 1024, 300
ONE, TWO, GROUPS = "one process, one thread", "executor, 2 workers", 'vmap(devices=["cpu"] * 2)'
X = torch.linspace(-1, 1, 128)[:, None]
NET = tp.functional(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)))


def train(key: Tensor, learning_rate: Tensor) -> Tensor:
    """Train one member, and return its last loss."""
    params, _ = NET.init(key)
    data = (X, torch.sin(3 * X))
    return tp.fit(NET, data, optimizer=tp.optim.adam(learning_rate), steps=STEPS, params=params).history[-1]


def main() -> None:
    """Compare the seconds, and require equal bits."""
    torch.set_num_threads(1)
    key, rates = tp.random.key(0), torch.logspace(-4, -2, MEMBERS, dtype=torch.float64)
    keys = tp.random.split(key, MEMBERS)
    one = tp.jit(tp.vmap(train, chunk_size=64))
    groups = tp.jit(tp.vmap(train, chunk_size=64, devices=["cpu"] * 2))
    with LocalWorkers(2) as workers:
        sweep = partial(tp.sweep, train, [{"learning_rate": rate} for rate in rates], key=key)
        programs = {ONE: lambda: one(keys, rates), GROUPS: lambda: groups(keys, rates)}
        rows: dict[str, list[float]] = {name: [] for name in (ONE, TWO, GROUPS)}
        wanted = sweep().results
        for number in range(REPEATS + 1):
            start = time.perf_counter()
            losses = programs[ONE]()
            middle = time.perf_counter()
            grouped = programs[GROUPS]()
            end = time.perf_counter()
            shared = sweep(executor=workers).results
            last = time.perf_counter()
            assert torch.equal(losses, grouped) and torch.equal(shared, wanted)
            if number:  # the first one compiles
                for name, value in zip((ONE, GROUPS, TWO), (middle - start, end - middle, last - end), strict=True):
                    rows[name].append(value)
    for name, bar in ((TWO, 0.6), (GROUPS, 0.55)):
        report(f"scale: {name}, {MEMBERS} members", {name: rows[name], ONE: rows[ONE]}, name, {ONE: bar}, {}, unit="s")


if __name__ == "__main__":
    main()

"""1,024 members in two processes, and on two groups of cores, against one process on one thread.

Members are trainings of a network of two hidden layers; a repeat runs all programs in turn. A sweep traces its program
in each call, here and in each worker; a vmap is warm. On a busy machine ratios are larger than on an idle one.
"""

import time
from functools import partial

import torch
from torch import Tensor, nn

import torchpure as tp
from torchpure.train.executors import LocalWorkers

from ._harness import REPEATS, report

MEMBERS, STEPS = 1024, 1000
ONE, GROUPS = "vmap, one thread", 'vmap(devices=["cpu"] * 2)'
ALONE, TWO = "sweep, one process, one thread", "sweep, executor of 2 workers"
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
        programs = {
            ONE: lambda: one(keys, rates),
            GROUPS: lambda: groups(keys, rates),
            ALONE: lambda: sweep().results,
            TWO: lambda: sweep(executor=workers).results,
        }
        rows: dict[str, list[float]] = {name: [] for name in programs}
        for number in range(REPEATS + 1):
            results = {}
            for name, program in programs.items():
                start = time.perf_counter()
                results[name] = program()
                if number:  # the first one fills the disk cache, and starts the workers
                    rows[name].append(time.perf_counter() - start)
            assert torch.equal(results[ONE], results[GROUPS]) and torch.equal(results[ALONE], results[TWO])
    for name, other, bar in ((TWO, ALONE, 0.6), (GROUPS, ONE, 0.55)):
        report(
            f"scale: {name}, {MEMBERS} members",
            {name: rows[name], other: rows[other]},
            name,
            {other: bar},
            {},
            unit="s",
        )


if __name__ == "__main__":
    main()

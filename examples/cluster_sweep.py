"""Learning rates and seeds of a small network, trained on a cluster: the same program runs on a laptop.

    python examples/cluster_sweep.py                             # two processes of this machine
    python examples/cluster_sweep.py --scheduler tcp://HOST:8786  # the workers of a Dask scheduler

Results are the same bit for bit, wherever members run. Finished chunks are kept in a folder; start the program again
with the same folder, and only the others run.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import torchpure as tp

X = torch.linspace(-1, 1, 64)[:, None]
NET = tp.functional(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)))


def train(key: Tensor, learning_rate: Tensor, steps: int) -> Tensor:
    """Train one member, and return its last loss. A function of a module: workers import it."""
    params, _ = NET.init(key)
    data = (X, torch.sin(3 * X))
    return tp.fit(NET, data, optimizer=tp.optim.adam(learning_rate), steps=steps, params=params).history[-1]


def local_workers() -> ProcessPoolExecutor:
    """Make two processes; called again if one of them is lost."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(2, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,))


def main(executor=local_workers, folder: Path | None = None, steps: int = 300, seeds: int = 8, jit: bool = True):
    """Run the sweep, and return it."""
    space = {"learning_rate": torch.logspace(-4, -1, 8, dtype=torch.float64), "steps": [steps]}
    resume = folder is not None and folder.exists()
    run = partial(tp.sweep, train, space, key=tp.random.key(0), seeds=seeds, jit=jit)
    found = run(executor=executor, checkpoint=folder, resume=resume)
    print(tp.train.best(found))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scheduler", help="the address of a Dask scheduler")
    parser.add_argument("--folder", type=Path, help="where finished chunks are kept")
    options = parser.parse_args()
    if options.scheduler:
        from distributed import Client

        with Client(options.scheduler) as client:
            main(client.get_executor(), options.folder)
    else:
        main(folder=options.folder)

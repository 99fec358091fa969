"""A network that several processes train on parts of each batch: the result is that of one process.

    python examples/data_parallel.py                               # one process
    torchrun --nproc-per-node 2 examples/data_parallel.py          # two processes of this machine

Each process gives the same arguments, and gets the same parameters. The first one alone prints.
"""

import torch
import torch.distributed as dist
from torch import nn

import torchpure as tp


def data(rows: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points and the values to learn, equal on all processes: they are drawn from a key."""
    x = 2 * tp.random.uniform(tp.random.key(0), (rows, 2), dtype=torch.float64) - 1
    return x, torch.sin(3 * x[:, :1]) * x[:, 1:]


def main(steps: int = 300, batch_size: int = 64, jit: bool = True) -> tp.train.Fit:
    """Train on all processes, and return the fit."""
    net = tp.functional(nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1)).double())
    params, _ = net.init(tp.random.key(1))
    mesh = tp.make_mesh((-1,), ("data",))
    fitted = tp.fit(
        net,
        data(),
        params=params,
        optimizer=tp.optim.chain(tp.optim.clip_by_global_norm(1.0), tp.optim.adam(0.01)),
        steps=steps,
        batch_size=batch_size,
        key=tp.random.key(2),
        mesh=mesh,
        jit=jit,
    )
    if dist.get_rank() == 0:
        print(f"{mesh.size()} processes: {fitted}")
    return fitted


if __name__ == "__main__":
    main()
    dist.destroy_process_group()

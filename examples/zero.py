"""ZeRO: processes share the state of the optimizer, the gradients and the parameters. Each stage is a layout.

    python examples/zero.py                               # one process
    torchrun --nproc-per-node 2 examples/zero.py          # two processes of this machine

Rajbhandari, Rasley, Ruwase and He 2020, arXiv:1910.02054. The losses of all stages are equal, up to rounding.
"""

import torch
import torch.distributed as dist
from torch import Tensor

import torchpure as tp
from torchpure import P, tree

WIDTHS = (16, 64, 64, 4)


def start() -> dict[str, Tensor]:
    """Draw the weights of a network, equal on all processes."""
    keys = tp.random.split(tp.random.key(0), len(WIDTHS) - 1)
    return {
        f"layer{i}": tp.random.normal(keys[i], WIDTHS[i : i + 2], dtype=torch.float64) / WIDTHS[i] ** 0.5
        for i in range(len(WIDTHS) - 1)
    }


def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the mean square of the errors."""
    *hidden, last = params.values()
    for weight in hidden:
        x = torch.tanh(x @ weight)
    return ((x @ last - y) ** 2).mean()


def train(stage: int, steps: int) -> tuple[list[float], int, int]:
    """Train with a stage of ZeRO; return the losses, and the bytes of parameters and state on this process."""
    mesh, optimizer = tp.make_mesh((-1,), ("data",)), tp.optim.adam(0.01)
    params, split = start(), tp.parallel.partition_specs(start(), mesh, "data")
    state = optimizer.init(params)
    params = tp.device_put(params, mesh, split if stage >= 3 else P())
    if stage >= 1:
        state = tp.device_put(state, mesh, tp.parallel.partition_specs(state, mesh, "data"))
    x = tp.random.normal(tp.random.key(1), (128, WIDTHS[0]), dtype=torch.float64)
    batch = tp.device_put((x, x[:, : WIDTHS[-1]].sin()), mesh, P("data"))

    def mean_loss(params, x, y):  # of the rows of this process; parameters that are split are gathered here
        return tp.pmean(loss(params, x, y), "data")

    evaluate = tp.value_and_grad(tp.shard_map(mean_loss, mesh, (P(), P("data"), P("data")), P(), check=False))
    losses = []
    for _ in range(steps):
        value, grads = evaluate(params, *batch)
        if stage >= 2:
            grads = tp.device_put(grads, mesh, split)
        params, state = optimizer.step(grads, state, params)
        losses.append(value.full_tensor().item())
    return losses, local_bytes(params), local_bytes(state)


def local_bytes(values) -> int:
    """Return the bytes that this process keeps of a tree."""
    leaves = [leaf.to_local() if hasattr(leaf, "to_local") else leaf for leaf in tree.leaves(values)]
    return sum(leaf.nbytes for leaf in leaves)


def main(steps: int = 30) -> list[list[float]]:
    """Train with each stage, and return the losses."""
    found = [train(stage, steps) for stage in range(4)]
    if dist.get_rank() == 0:
        for stage, (losses, of_params, of_state) in enumerate(found):
            print(f"stage {stage}: loss {losses[-1]:.6f}, {of_params:,} bytes of parameters, {of_state:,} of state")
    return [losses for losses, _, _ in found]


if __name__ == "__main__":
    main()
    dist.destroy_process_group()

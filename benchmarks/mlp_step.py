"""One step of an MLP, 784-512-512-10 with ReLU, on a batch of 128: cross entropy, Adam."""

from typing import Any

import torch
from torch import nn

import torchpure as tp

from ._article import have
from ._harness import check_same_work, report, times
from ._step import COMPILED, JAX, OURS, SETTINGS, Work, jax_step, torch_programs, torchpure_step

THREADS = 2
FIGURE, LEARNING_RATE = "mlp step", 1e-3


def main() -> None:
    """Compare steps, in microseconds."""
    model = tp.functional(_network).to_module()
    k_inputs, k_targets = tp.random.split(tp.random.key(1))
    inputs, targets = tp.random.normal(k_inputs, (128, 784)), tp.random.randint(k_targets, (128,), 0, 10)
    work = Work(model, inputs, targets, LEARNING_RATE, torch.optim.Adam, tp.optim.adam(LEARNING_RATE))
    programs = {OURS: torchpure_step(work)} | torch_programs(work)
    if have("jax", "optax"):
        import optax

        programs[JAX] = jax_step(work, _forward, optax.adam(LEARNING_RATE))
    for run, _ in programs.values():
        run(10)
    check_same_work(FIGURE, {name: loss() for name, (_, loss) in programs.items()}, 1e-3)
    rows = times({name: run for name, (run, _) in programs.items()}, 100)
    report(f"{FIGURE}: 784-512-512-10, batch 128, Adam", rows, OURS, dict.fromkeys(COMPILED, 1.0), SETTINGS)


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def _forward(params: dict, hidden: Any) -> Any:
    import jax

    for i in (0, 2, 4):
        hidden = hidden @ params[f"{i}.weight"].T + params[f"{i}.bias"]
        hidden = jax.nn.relu(hidden) if i < 4 else hidden
    return hidden

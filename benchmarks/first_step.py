"""How long the first training step of a transformer takes in a new process: with empty caches, and with full ones.

The network and the peers are those of `transformer_step`. Each case is a new process, whose caches are folders of its
own; times begin after the imports and end with the first loss.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import torch

from . import transformer_step as step
from ._article import have
from ._harness import REPEATS, check_same_work, report
from ._step import COMPILED, jax_step, torch_step, torchpure_step

THREADS = 2
FIGURE = "first step of a transformer"
OURS, COMPILE, JAX = "torchpure", "torch.compile, fused", "JAX"
SETTINGS = {
    OURS: "jit of the step, donated; TORCHPURE_CACHE and TORCHINDUCTOR_CACHE_DIR",
    COMPILE: "model and loss compiled, backward, fused=True eager; TORCHINDUCTOR_CACHE_DIR, its cache of graphs on",
    JAX: "jit of the step with optax, donated; JAX_COMPILATION_CACHE_DIR, every program kept",
}


def main() -> None:
    """Measure each peer in new processes, one after another."""
    names = [name for name in SETTINGS if have("jax", "optax") or name != JAX]
    empty: dict[str, list[float]] = {name: [] for name in names}
    full: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(REPEATS):
        losses = {}
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                for rows in (empty, full):
                    seconds, losses[name] = _child(name, folder)
                    rows[name].append(seconds)
        check_same_work(FIGURE, losses, 1e-3)
    report(f"{FIGURE}, empty caches", empty, OURS, {}, SETTINGS, unit="s")
    report(f"{FIGURE}, caches that another process filled", full, OURS, {}, SETTINGS, unit="s")


def _child(name: str, folder: str) -> tuple[float, float]:
    caches = {
        "TORCHPURE_CACHE": f"{folder}/torchpure",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    call = f"from benchmarks import first_step; first_step.child({name!r})"
    done = subprocess.run(
        [sys.executable, "-c", call], env=os.environ | caches, check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, loss = json.loads(done.stdout.splitlines()[-1])
    return seconds, loss


def child(name: str) -> None:
    """Print the seconds until the first loss of this peer is there, and the loss."""
    torch.set_num_threads(THREADS)
    work = step.work()
    if name == JAX:
        import optax

        made = jax_step(work, step.forward, optax.adamw(step.LEARNING_RATE, weight_decay=1e-2))
    else:
        made = torchpure_step(work) if name == OURS else torch_step(work, **COMPILED[COMPILE])
    run, loss = made
    begun = time.perf_counter()
    run(1)
    value = loss()
    print(json.dumps([time.perf_counter() - begun, value]))

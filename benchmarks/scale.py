"""The gradient of a data-parallel loss on two processes: shard_map of ours, and JAX's on two devices of one process.

`torchrun` starts this file on two processes. The first one measures, and tells the second how many steps to run.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist

import torchpure as tp

from ._article import have
from ._harness import report, times

THREADS = 2
FIGURE = "scale"
OURS, JAX = "torchpure", "JAX"
PROCESSES, ROWS, WIDTHS = 2, 512, (64, 256, 256, 10)
SETTINGS = {
    OURS: "shard_map(jit(grad)) of DTensors on two processes of gloo, one thread each",
    JAX: "jit(shard_map(grad)) on two host devices of one process",
}


def main() -> None:
    """Start the processes, and measure."""
    if "RANK" in os.environ:
        _measure()
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    subprocess.run([*command, "-m", "benchmarks.scale"], check=True)


def _inputs() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    keys = tp.random.split(tp.random.key(0), len(WIDTHS) + 1)
    weights = [
        tp.random.normal(key, shape) / shape[0] ** 0.5 for key, shape in zip(keys, pairwise(WIDTHS), strict=False)
    ]
    return weights, tp.random.normal(keys[-2], (ROWS, WIDTHS[0])), tp.random.normal(keys[-1], (ROWS, WIDTHS[-1]))


def _loss(weights: Any, x: Any, y: Any) -> Any:
    for weight in weights[:-1]:
        x = torch.tanh(x @ weight)
    return ((x @ weights[-1] - y) ** 2).mean()


def _ours() -> Callable[[], Any]:
    mesh = tp.make_mesh((PROCESSES,), ("data",))
    specs = (tp.P(), tp.P("data"), tp.P("data"))
    arguments = tp.device_put(_inputs(), mesh, specs)

    def step(weights: Any, x: Any, y: Any) -> Any:
        return tp.pmean(tp.grad(_loss)(weights, x, y), "data")

    mapped = tp.shard_map(tp.jit(step), mesh, specs, tp.P(), check=False)
    for ours, reference in zip(mapped(*arguments), tp.grad(_loss)(*_inputs()), strict=True):
        torch.testing.assert_close(ours.to_local(), reference, rtol=1e-4, atol=1e-6)
    return lambda: mapped(*arguments)


def _measure() -> None:
    torch.set_num_threads(1)
    run = _ours()
    count = torch.zeros((), dtype=torch.int64)

    def steps(number: int) -> None:
        dist.broadcast(count.fill_(number), 0)
        for _ in range(number):
            run()

    if dist.get_rank():
        while int(dist.broadcast(count, 0) or count):
            for _ in range(int(count)):
                run()
    else:
        runs: dict[str, Any] = {OURS: steps}
        if have("jax"):
            runs[JAX] = _jax()
        title = f"{FIGURE}: a gradient over {ROWS} rows, widths {WIDTHS}, on {PROCESSES} processes"
        report(title, times(runs, 200), OURS, {JAX: 1.0}, SETTINGS)
        dist.broadcast(count.fill_(0), 0)
    dist.barrier()
    dist.destroy_process_group()


def _jax() -> Callable[[int], None]:
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as Spec

    jax.config.update("jax_num_cpu_devices", PROCESSES)  # XLA stops reading its flags at one that it does not know
    mesh = jax.make_mesh((PROCESSES,), ("data",), devices=jax.devices()[:PROCESSES])
    specs = (Spec(), Spec("data"), Spec("data"))

    def loss(weights: Any, x: Any, y: Any) -> Any:
        for weight in weights[:-1]:
            x = jnp.tanh(x @ weight)
        return ((x @ weights[-1] - y) ** 2).mean()

    def step(weights: Any, x: Any, y: Any) -> Any:
        return jax.lax.pmean(jax.grad(loss)(weights, x, y), "data")

    mapped = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=Spec(), check_vma=False))
    arguments = [
        jax.tree.map(lambda leaf, spec=spec: jax.device_put(jnp.asarray(leaf.numpy()), NamedSharding(mesh, spec)), part)
        for part, spec in zip(_inputs(), specs, strict=True)
    ]
    for theirs, reference in zip(mapped(*arguments), tp.grad(_loss)(*_inputs()), strict=True):
        torch.testing.assert_close(torch.tensor(jax.device_get(theirs)), reference, rtol=1e-4, atol=1e-6)

    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(mapped(*arguments))

    return run


if __name__ == "__main__":
    main()

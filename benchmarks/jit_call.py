"""The overhead of calling a compiled function, with ten small tensors as inputs and outputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import torchpure as tp

from ._article import have
from ._harness import repeat, report, times

THREADS = 1
FIGURE = "jit call"
OURS, COMPILE, JAX = "torchpure", "torch.compile", "JAX"
COUNT, SIZE = 10, 5
SETTINGS = {
    OURS: "jit(f)(*tensors)",
    COMPILE: "torch.compile(f, fullgraph=True)(*tensors)",
    JAX: "jit(f)(*arrays); waits for the results of each call",
    "JAX, not waiting": "the same, waits for the last call only",
    "eager": "f(*tensors) of torch",
}


def returned(*values: Any) -> tuple:
    """Return the inputs."""
    return values


def increased(*values: Any) -> tuple:
    """Add one to each input."""
    return tuple(value + 1 for value in values)


def main() -> None:
    """Compare calls of a function that returns its inputs, and of one that adds 1 to each."""
    tensors = [tp.random.normal(key, (SIZE,)) for key in tp.random.split(tp.random.key(0), COUNT)]
    for title, f in {"returns its inputs": returned, "x + 1 of each": increased}.items():
        programs = {OURS: tp.jit(f), COMPILE: torch.compile(f, fullgraph=True), "eager": f}
        _check(f, programs, tensors)
        runs = {name: _calls(call, tensors) for name, call in programs.items()}
        if have("jax"):
            runs |= _jax(f, tensors)
        bars = {JAX: 2.0, "JAX, not waiting": 2.0}
        report(f"{FIGURE}: {COUNT} tensors of {SIZE}, {title}", times(runs, 4000), OURS, bars, SETTINGS)


def _check(f: Callable, programs: dict[str, Callable], tensors: list[Tensor]) -> None:
    for name, call in programs.items():
        if not all(map(torch.equal, call(*tensors), f(*tensors))):
            raise SystemExit(f"{FIGURE}: {name} differs")


def _calls(call: Callable, tensors: list[Tensor]) -> Callable[[int], None]:
    return repeat(lambda: call(*tensors))


def _jax(f: Callable, tensors: list[Tensor]) -> dict[str, Callable[[int], None]]:
    import jax
    import jax.numpy as jnp

    call, arrays = jax.jit(f), [jnp.array(tensor.numpy()) for tensor in tensors]

    def waiting(count: int) -> None:
        for _ in range(count):
            call(*arrays)[-1].block_until_ready()

    def running(count: int) -> None:
        for _ in range(count):
            results = call(*arrays)
        jax.block_until_ready(results)

    return {JAX: waiting, "JAX, not waiting": running}

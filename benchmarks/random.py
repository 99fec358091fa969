"""Random numbers from keys: a million, five, and a few for each of a thousand keys."""

import torch

import torchpure as tp

from ._harness import Run, report, times

OURS, RAND = "torchpure", "torch.rand"


def _repeat(call) -> Run:
    def run(count: int) -> None:
        for _ in range(count):
            call()

    return run


def _jax():
    import jax

    key = jax.random.key(0)
    draw = jax.jit(jax.random.uniform, static_argnames="shape")
    many = jax.jit(jax.vmap(lambda key: jax.random.uniform(key, (5, 5))))
    keys = jax.random.split(key, 1000)
    return {
        "million": lambda: draw(key, shape=(1_000_000,)).block_until_ready(),
        "few": lambda: draw(key, shape=(5,)).block_until_ready(),
        "keys": lambda: many(keys).block_until_ready(),
    }


def main() -> None:
    """Compare draws of the same number of uniform float32 values."""
    key, jax = tp.random.key(0), _jax()
    keys = tp.random.split(key, 1000)
    for _ in range(3):  # large draws are compiled from the second one on
        tp.random.uniform(key, (1_000_000,))
    settings = {OURS: "random.uniform of a key", RAND: "its global generator", "JAX": "jit of random.uniform, threefry"}
    programs = {
        OURS: _repeat(lambda: tp.random.uniform(key, (1_000_000,))),
        RAND: _repeat(lambda: torch.rand(1_000_000)),
        "JAX": _repeat(jax["million"]),
    }
    report("random: a million uniforms", times(programs, 20), OURS, {RAND: 2.0}, settings)
    programs = {
        OURS: _repeat(lambda: tp.random.uniform(key, (5,))),
        "torchpure normal": _repeat(lambda: tp.random.normal(key, (5,))),
        RAND: _repeat(lambda: torch.rand(5)),
        "JAX": _repeat(jax["few"]),
    }
    report("random: five uniforms", times(programs, 1000), OURS, {}, {**settings, "torchpure normal": "random.normal"})
    programs = {
        OURS: _repeat(lambda: tp.vmap(lambda key: tp.random.uniform(key, (5, 5)))(keys)),
        "JAX": _repeat(jax["keys"]),
    }
    report("random: 5 × 5 for each of 1,000 keys", times(programs, 50), OURS, {}, settings)

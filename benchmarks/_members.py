"""Many trainings in one program, one learning rate and one key each, against JAX: what two figures share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torchpure as tp

from ._article import POINTS, STEPS, SimpleNN, data, have, jax_train, to_jax, training
from ._harness import repeat, report, times

OURS, JAX = "torchpure", "JAX"
SETTINGS = {
    OURS: "jit(vmap(train))(keys, learning_rates): net.init, then a scan of value_and_grad and adam(learning_rate)",
    JAX: "jit(vmap(train))(params, learning_rates): lax.scan, optax.adam(learning_rate); given our initial values",
}


def compare(figure: str, bars: dict[str, float], members: int, neurons: int, learning_rate: float, runs: int) -> None:
    """Report the microseconds that a member's step takes, over so many whole runs a repeat.

    The learning rates go from a tenth of `learning_rate` to it.
    """
    x, y = data()
    net = tp.functional(SimpleNN, num_neurons=neurons)
    keys = tp.random.split(tp.random.key(0), members)
    learning_rates = learning_rate * torch.logspace(-1, 0, members)
    programs = {OURS: _torchpure(net, keys, learning_rates, x, y)}
    if have("jax", "optax"):
        programs[JAX] = _jax(tp.vmap(net.init)(keys)[0], learning_rates, x, y)
    _check_members(figure, {name: run() for name, run in programs.items()})
    rows = times({name: repeat(run) for name, run in programs.items()}, runs, bursts=runs, units=STEPS * members)
    threads = {1: "one thread", 2: "two threads"}.get(torch.get_num_threads(), "more threads")
    title = f"{members:,} members, {STEPS} steps, {POINTS} points, {neurons} neurons, {threads}; µs a member and step"
    report(f"{figure}: {title}", rows, OURS, bars, SETTINGS)


def _check_members(figure: str, losses: dict[str, Any]) -> None:
    """Stop when members differ: all of them in fifty steps, and half of them at the end.

    Rounding errors of a member with a high learning rate grow while its loss oscillates.
    """
    mine = np.asarray(losses[OURS])
    for name, loss in losses.items():
        far = np.abs(np.asarray(loss) / mine - 1)
        early, median, late = far[:, :50].max(), np.median(far[:, -1]), far[:, -1].max()
        distances = f"{early:.1e} from ours in fifty steps, at the end {median:.1e} (median) to {late:.1e}"
        if not (early <= 1e-2 and median <= 1e-3):  # a NaN is not
            raise SystemExit(f"{figure}: members of {name} differ: {distances}")
        print(f"{figure}: members of {name}: {distances}")


def _torchpure(net: tp.Functional, keys: Tensor, learning_rates: Tensor, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    run = training(net)

    def train(key: Tensor, learning_rate: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        params, _ = net.init(key)
        return run(params, learning_rate, x, y)

    members = tp.jit(tp.vmap(train))
    return lambda: members(keys, learning_rates)[1]


def _jax(initial: dict[str, Tensor], learning_rates: Tensor, x: Tensor, y: Tensor) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    params, rates, xs, ys = to_jax(initial), jnp.array(learning_rates), jnp.array(x), jnp.array(y)
    members = jax.jit(jax.vmap(lambda params, learning_rate: jax_train(params, learning_rate, xs, ys)))
    return lambda: members(params, rates)[1].block_until_ready()

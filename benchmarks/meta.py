"""Hyper-gradient of Adam's rate through 200 steps, and the memory of a learned optimizer's meta-gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchpure as tp

from ._article import have
from ._harness import check_same_work, repeat, report, times
from ._memory import memory

STEPS, POINTS, RATE = 200, 64, 1e-3  # at a rate of 1e-2 float32 differs from float64 by 4 %, here and in JAX
OURS, JAX = "torchpure", "JAX"
SETTINGS = {
    OURS: "jit of the derivative of tp.train.unroll, an unmodified module",
    JAX: "jax.jit of the derivative of lax.scan, optax.adam",
}
LEARNED_STEPS, REMAT = 100, 10
WITH_REMAT, WITHOUT = "remat=10", "without"
Work = Callable[[], float]  # the derivative of the last loss by the rate


def main() -> None:
    """Compare the derivatives' times in microseconds, then the memory of the learned optimizer in MiB."""
    x = torch.linspace(-3, 3, POINTS).unsqueeze(1)
    torch.manual_seed(0)
    net = tp.functional(nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)))
    for mode in ("reverse", "forward"):
        programs = {OURS: _ours(net, x, mode)}
        if have("jax", "optax"):
            programs[JAX] = _jax(net, x, mode)
        figure = f"Hyper-gradient of Adam's rate, 200 steps, {mode}; {torch.get_num_threads()} thread(s)"
        check_same_work(figure, {name: run() for name, run in programs.items()}, 1e-4)
        rows = times({name: repeat(run) for name, run in programs.items()}, 20, bursts=5)
        report(f"{figure}; µs", rows, OURS, {JAX: 0.8}, SETTINGS)
    _learned_optimizer()


def _ours(net: tp.Functional, x: Tensor, mode: str) -> Work:
    y = x.sin()

    def last_loss(rate: Tensor) -> Tensor:
        loss = lambda params: F.mse_loss(net(params, x), y)  # noqa: E731
        return loss(tp.train.unroll(loss, net.params, tp.optim.adam(rate), STEPS).params)

    derivative = (
        tp.grad(last_loss) if mode == "reverse" else lambda r: tp.jvp(last_loss, (r,), (torch.ones_like(r),))[1]
    )
    compiled, rate = tp.jit(derivative), torch.tensor(RATE)
    return lambda: compiled(rate).item()


def _jax(net: tp.Functional, x: Tensor, mode: str) -> Work:
    import jax
    import jax.numpy as jnp
    import optax

    leaves = [jnp.array(leaf.numpy()) for leaf in net.params.values()]
    start = list(zip(leaves[::2], leaves[1::2], strict=True))
    xs, ys = jnp.array(x.numpy()), jnp.array(x.sin().numpy())

    def loss(params: Any) -> Any:
        hidden = xs
        for weight, bias in params[:-1]:
            hidden = jnp.tanh(hidden @ weight.T + bias)
        weight, bias = params[-1]
        return jnp.mean((hidden @ weight.T + bias - ys) ** 2)

    def last_loss(rate: Any) -> Any:
        optimizer = optax.adam(rate)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return loss(jax.lax.scan(step, (start, optimizer.init(start)), None, STEPS)[0][0])

    forward = lambda rate: jax.jvp(last_loss, (rate,), (jnp.ones_like(rate),))[1]  # noqa: E731
    compiled, rate = jax.jit(jax.grad(last_loss) if mode == "reverse" else forward), jnp.array(RATE)
    return lambda: float(compiled(rate))


def _learned_optimizer() -> None:
    """Compare the peak memory of the meta-gradient through 100 steps of an LSTM over 2,000 coordinates, eager."""
    cell = nn.LSTMCell(1, 20)
    weights = {name: leaf.detach() for name, leaf in cell.named_parameters()}
    curvature, start = torch.linspace(0.1, 2.0, 2000), torch.ones(2000)
    zeros = torch.zeros(2000, 20)

    def step(meta: Any, carry: Any, _: None) -> Any:
        params, state = carry
        value, grads = tp.value_and_grad(lambda p: (curvature * p**2).mean() * 1000)(params)
        hidden, memory = torch.func.functional_call(cell, meta["cell"], (grads[:, None], state))
        return (params + 0.01 * (hidden @ meta["out"]), (hidden, memory)), value

    def total(meta: Any, remat: int | None) -> Tensor:
        return tp.scan(partial(step, meta), (start, (zeros, zeros)), None, LEARNED_STEPS, remat=remat)[1].sum()

    meta = {"cell": weights, "out": torch.full((20,), 0.1)}
    runs = {name: partial(tp.grad(total), meta, remat) for name, remat in ((WITH_REMAT, REMAT), (WITHOUT, None))}
    for run in runs.values():
        run()
    rows = {name: [memory(repeat(run)) for _ in range(3)] for name, run in runs.items()}
    settings = {WITH_REMAT: "tp.scan(..., remat=10), eager", WITHOUT: "tp.scan, eager"}
    report("Learned optimizer, 100 inner steps, peak memory; MiB", rows, WITH_REMAT, {WITHOUT: 0.25}, settings, "MiB")

"""A physics-informed run: a network with two hidden layers of 32 learns u with Δu = f on 64 points, 200 steps of Adam.

`tp.laplacian` computes the Laplacian in a forward pass, as folx does in JAX. The others take the trace of a Hessian.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import torchpure as tp

from ._article import have, last, to_jax
from ._harness import check_same_work, repeat, report, times

THREADS = 1
STEPS, POINTS, LEARNING_RATE = 200, 64, 1e-3
FIGURE = "poisson run"
OURS, JAX, FOLX, EAGER = "torchpure", "JAX", "JAX, folx", "torch.func"
SETTINGS = {
    OURS: "jit of the whole run: scan of value_and_grad, vmap of laplacian, an unmodified module",
    JAX: "jit of the whole run: lax.scan, optax.adam, vmap of the trace of jax.hessian",
    FOLX: "the same with folx.forward_laplacian",
    EAGER: "grad_and_value, vmap of the trace of torch.func.hessian, torch.optim.Adam(fused=True), eager",
}
WholeRun = Callable[[], Any]


def main() -> None:
    """Compare whole runs, in microseconds for each step."""
    net = tp.functional(_network)
    x = tp.random.uniform(tp.random.key(1), (POINTS, 2))
    f = -2 * torch.pi**2 * torch.sin(torch.pi * x).prod(1)
    programs: dict[str, WholeRun] = {OURS: _torchpure(net, x, f)}
    if have("jax", "optax"):
        programs[JAX] = _jax(net, x, f, _hessian_trace)
    if have("jax", "optax", "folx"):
        programs[FOLX] = _jax(net, x, f, _forward_laplacian)
    programs[EAGER] = _eager(net, x, f)
    check_same_work(FIGURE, {name: last(run()) for name, run in programs.items()}, 1e-3)
    counts = {name: 1 if name == EAGER else 20 for name in programs}
    rows = times({name: repeat(run) for name, run in programs.items()}, counts, bursts=4, units=STEPS)
    report(
        f"{FIGURE}: {STEPS} steps, {POINTS} points, Laplacian of 2-32-32-1, Adam; µs a step", rows, OURS, {}, SETTINGS
    )


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def _torchpure(net: tp.Functional, x: Tensor, f: Tensor) -> WholeRun:
    optimizer = tp.optim.adam(LEARNING_RATE)

    def residual(params: dict[str, Tensor], point: Tensor, source: Tensor) -> Tensor:
        return tp.laplacian(lambda at: net(params, at)[0])(point) - source

    def loss(params: dict[str, Tensor], x: Tensor, f: Tensor) -> Tensor:
        return (tp.vmap(residual, in_dims=(None, 0, 0))(params, x, f) ** 2).mean()

    def train(params: dict[str, Tensor], x: Tensor, f: Tensor) -> Tensor:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            value, grads = tp.value_and_grad(loss)(params, x, f)
            updates, state = optimizer.update(grads, state, params)
            return (tp.optim.apply_updates(params, updates), state), value

        return tp.scan(step, (params, optimizer.init(params)), None, length=STEPS)[1]

    run = tp.jit(train)
    return lambda: run(net.params, x, f)


def _jax(net: tp.Functional, x: Tensor, f: Tensor, laplacian: Callable[..., Any]) -> WholeRun:
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(LEARNING_RATE)

    def value(params: list, at: Any) -> Any:
        for number, (weight, bias) in enumerate(params):
            at = weight @ at + bias
            at = jnp.tanh(at) if number < len(params) - 1 else at[0]
        return at

    def loss(params: list, x: Any, f: Any) -> Any:
        found = jax.vmap(lambda at: laplacian(lambda at: value(params, at), at))(x)
        return jnp.mean((found - f) ** 2)

    def train(params: list, x: Any, f: Any) -> Any:
        def body(carry: tuple, _: None) -> tuple[tuple, Any]:
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params, x, f)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(body, (params, optimizer.init(params)), None, length=STEPS)[1]

    run, params, xs, fs = jax.jit(train), to_jax(net.params), jnp.array(x), jnp.array(f)
    return lambda: run(params, xs, fs).block_until_ready()


def _hessian_trace(u: Callable[[Any], Any], at: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jnp.trace(jax.hessian(u)(at))


def _forward_laplacian(u: Callable[[Any], Any], at: Any) -> Any:
    import folx

    return folx.forward_laplacian(u)(at).laplacian


def _eager(net: tp.Functional, x: Tensor, f: Tensor) -> WholeRun:
    model = net.to_module()
    initial = [leaf.detach().clone() for leaf in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def residual(params: dict[str, Tensor], point: Tensor, source: Tensor) -> Tensor:
        value = lambda at: torch.func.functional_call(model, params, at)[0]  # noqa: E731
        return torch.func.hessian(value)(point).diagonal().sum() - source

    def loss(params: dict[str, Tensor]) -> Tensor:
        return (torch.func.vmap(residual, in_dims=(None, 0, 0))(params, x, f) ** 2).mean()

    def run() -> Tensor:
        optimizer.state.clear()
        with torch.no_grad():
            for leaf, first in zip(model.parameters(), initial, strict=True):
                leaf.copy_(first)
        for _ in range(STEPS):
            params = {name: leaf.detach() for name, leaf in model.named_parameters()}
            grads, value = torch.func.grad_and_value(loss)(params)
            for name, leaf in model.named_parameters():
                leaf.grad = grads[name]
            optimizer.step()
        return value

    return run

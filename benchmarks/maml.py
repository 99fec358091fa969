"""MAML on sines (Finn et al. 2017): one outer step, 25 tasks × 5 inner steps of SGD, second order."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchpure as tp

from ._article import have
from ._harness import check_same_work, repeat, report, times

TASKS, SHOTS, INNER_STEPS, INNER_RATE, OUTER_RATE, WIDTH = 25, 10, 5, 0.01, 1e-3, 40
OURS, JAX, TORCHOPT, HIGHER = "torchpure", "JAX", "torchopt", "torch loop"
SETTINGS = {
    OURS: "jit of vmap of tp.train.unroll and of Adam's step, an unmodified module",
    JAX: "jax.jit of grad of vmap, optax.sgd inside and optax.adam outside",
    TORCHOPT: "torchopt.MetaSGD, eager, one task after the other, torch.optim.Adam outside",
    HIGHER: "torch.autograd.grad(create_graph=True) and functional_call, as higher does it; torch.optim.Adam outside",
}
Work = Callable[[], float]  # an outer step: the loss before it


def main() -> None:
    """Compare the time of one outer step, in microseconds."""
    data = _tasks()
    programs = _programs(data)
    figure = f"MAML, 25 sines × 5 inner steps; {torch.get_num_threads()} thread(s)"
    check_same_work(figure, {name: [run() for _ in range(3)][-1] for name, run in programs.items()}, 1e-3)
    slow = {TORCHOPT, HIGHER}
    counts = {name: 5 if name in slow else 200 for name in programs}
    rows = times({name: repeat(run) for name, run in programs.items()}, counts, bursts=5)
    report(f"{figure}; µs", rows, OURS, {JAX: 0.8, TORCHOPT: 0.03, HIGHER: 0.03}, SETTINGS)


def _programs(data: tuple[Tensor, ...]) -> dict[str, Work]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
    programs = {OURS: _ours(module, data)}
    if have("jax", "optax"):
        programs[JAX] = _jax(module, data)
    if have("torchopt"):
        programs[TORCHOPT] = _torchopt(module, data)
    return programs | {HIGHER: _torch_loop(module, data)}


def _tasks() -> tuple[Tensor, ...]:
    """Draw support and query points of each sine, of shape (tasks, shots, 1)."""
    keys = tp.random.split(tp.random.key(0), 4)
    amplitude = tp.random.uniform(keys[0], (TASKS, 1, 1), low=0.1, high=5.0)
    phase = tp.random.uniform(keys[1], (TASKS, 1, 1), high=torch.pi)
    points = [tp.random.uniform(key, (TASKS, SHOTS, 1), low=-5.0, high=5.0) for key in keys[2:]]
    return tuple(part for x in points for part in (x, amplitude * (x + phase).sin()))


def _ours(module: nn.Module, data: tuple[Tensor, ...]) -> Work:
    net = tp.functional(module)
    inner, outer = tp.optim.sgd(INNER_RATE), tp.optim.adam(OUTER_RATE)

    def after_adaptation(params: Any, x: Tensor, y: Tensor, x_query: Tensor, y_query: Tensor) -> Tensor:
        adapted = tp.train.unroll(lambda p: F.mse_loss(net(p, x), y), params, inner, INNER_STEPS).params
        return F.mse_loss(net(adapted, x_query), y_query)

    def loss(params: Any, data: tuple[Tensor, ...]) -> Tensor:
        return tp.vmap(lambda *task: after_adaptation(params, *task))(*data).mean()

    @tp.jit
    def step(params: Any, state: Any, data: tuple[Tensor, ...]) -> tuple[Any, Any, Tensor]:
        value, grads = tp.value_and_grad(loss)(params, data)
        return *outer.step(grads, state, params), value

    carry = [net.params, outer.init(net.params)]

    def run() -> float:
        *carry[:], value = step(*carry, data)
        return value.item()

    return run


def _jax(module: nn.Module, data: tuple[Tensor, ...]) -> Work:
    import jax
    import jax.numpy as jnp
    import optax

    linears = [layer for layer in module if isinstance(layer, nn.Linear)]
    params = [tuple(jnp.array(leaf.detach().numpy()) for leaf in (one.weight, one.bias)) for one in linears]
    arrays = tuple(jnp.array(part.numpy()) for part in data)
    inner, outer = optax.sgd(INNER_RATE), optax.adam(OUTER_RATE)

    def net(params: Any, x: Any) -> Any:
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight.T + bias)
        weight, bias = params[-1]
        return x @ weight.T + bias

    def mse(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean((net(params, x) - y) ** 2)

    def after_adaptation(params: Any, x: Any, y: Any, x_query: Any, y_query: Any) -> Any:
        state = inner.init(params)
        for _ in range(INNER_STEPS):
            updates, state = inner.update(jax.grad(mse)(params, x, y), state, params)
            params = optax.apply_updates(params, updates)
        return mse(params, x_query, y_query)

    def loss(params: Any, data: Any) -> Any:
        return jax.vmap(lambda *task: after_adaptation(params, *task))(*data).mean()

    @jax.jit
    def step(params: Any, state: Any, data: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, data)
        updates, state = outer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    carry = [params, outer.init(params)]

    def run() -> float:
        *carry[:], value = step(*carry, arrays)
        return float(value)

    return run


def _torchopt(module: nn.Module, data: tuple[Tensor, ...]) -> Work:
    import copy

    import torchopt

    net = copy.deepcopy(module)
    outer, inner = torch.optim.Adam(net.parameters(), OUTER_RATE), torchopt.MetaSGD(net, lr=INNER_RATE)

    def run() -> float:
        start = torchopt.extract_state_dict(net, by="reference")
        optimizer_start = torchopt.extract_state_dict(inner, by="reference")
        outer.zero_grad()
        losses = []
        for x, y, x_query, y_query in zip(*data, strict=True):
            for _ in range(INNER_STEPS):
                inner.step(F.mse_loss(net(x), y))
            losses.append(F.mse_loss(net(x_query), y_query))
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(inner, optimizer_start)
        loss = torch.stack(losses).mean()
        loss.backward()
        outer.step()
        return loss.item()

    return run


def _torch_loop(module: nn.Module, data: tuple[Tensor, ...]) -> Work:
    import copy

    net = copy.deepcopy(module)
    outer, names = torch.optim.Adam(net.parameters(), OUTER_RATE), [name for name, _ in net.named_parameters()]

    def value(params: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(torch.func.functional_call(net, dict(zip(names, params, strict=True)), x), y)

    def run() -> float:
        outer.zero_grad()
        losses = []
        for x, y, x_query, y_query in zip(*data, strict=True):
            params = list(net.parameters())
            for _ in range(INNER_STEPS):
                grads = torch.autograd.grad(value(params, x, y), params, create_graph=True)
                params = [p - INNER_RATE * g for p, g in zip(params, grads, strict=True)]
            losses.append(value(params, x_query, y_query))
        loss = torch.stack(losses).mean()
        loss.backward()
        outer.step()
        return loss.item()

    return run

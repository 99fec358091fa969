"""The article's run: 500 steps of Adam on its network of five neurons and 40 points, from given parameters.

Every program starts each run at the same parameters; their losses at the end are compared before any timing.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

import torchpure as tp

from ._article import STEPS, SimpleNN, data, have, jax_train, last, to_jax, training
from ._harness import check_same_work, repeat, report, times

THREADS = 1
LEARNING_RATE = 0.01
FIGURE = "article run"
OURS, JAX, TORCHOPT = "torchpure", "JAX", "torchopt"
SETTINGS = {
    OURS: "jit of the whole run: scan of value_and_grad and optim.adam, an unmodified module",
    JAX: "jit of the whole run: lax.scan, optax.adam",
    "torch.optim fused": "module, backward, Adam(fused=True).step, eager",
    "torch.compile, fused": "model and loss compiled, backward, Adam(fused=True).step eager",
    "torch.compile, step": "the whole step compiled; it breaks in two at backward; its learning rate is a tensor",
    "torch.compile, functional": "step of torch.func and a leafwise Adam in one graph (fullgraph), called 500 times",
    TORCHOPT: "FuncOptimizer(adam(moment_requires_grad=False)); parameters detached after each step",
    "torchopt, defaults": "the same with its defaults, as in the article; use_accelerated_op=True is slower",
    "torchopt, functions": "torch.autograd.grad, adam.update, apply_updates(inplace=False), without FuncOptimizer",
}
COUNTS = {OURS: 100, JAX: 100}  # whole runs a repeat; of the others four
Whole = Callable[[], Any]  # a whole run; gives its losses, or the last one


def main() -> None:
    """Compare whole runs, in microseconds a step."""
    x, y = data()
    model = tp.functional(SimpleNN).to_module()
    programs: dict[str, Whole] = {OURS: _torchpure(model, x, y)}
    if have("jax", "optax"):
        programs[JAX] = _jax(model, x, y)
    programs["torch.optim fused"] = _torch(model, x, y, fused=True)
    programs["torch.compile, fused"] = _torch(model, x, y, compiled="loss", fused=True)
    programs["torch.compile, step"] = _torch(model, x, y, compiled="step")
    programs["torch.compile, functional"] = _functional(model, x, y)
    if have("torchopt"):
        programs[TORCHOPT] = _torchopt(model, x, y, moment_requires_grad=False)
        programs["torchopt, defaults"] = _torchopt(model, x, y)
        programs["torchopt, functions"] = _torchopt_functions(model, x, y)
    check_same_work(FIGURE, {name: last(run()) for name, run in programs.items()}, 1e-3)
    counts = {name: COUNTS.get(name, 4) for name in programs}
    rows = times({name: repeat(run) for name, run in programs.items()}, counts, bursts=4, units=STEPS)
    bars = {JAX: 0.45, TORCHOPT: 0.005}
    report(f"{FIGURE}: {STEPS} steps, 40 points, 5 neurons, Adam; µs a step", rows, OURS, bars, SETTINGS)


def _torchpure(model: nn.Module, x: Tensor, y: Tensor) -> Whole:
    net = tp.functional(model)
    train = tp.jit(training(net))
    learning_rate = torch.tensor(LEARNING_RATE)
    return lambda: train(net.params, learning_rate, x, y)[1]


def _jax(model: nn.Module, x: Tensor, y: Tensor) -> Whole:
    import jax
    import jax.numpy as jnp

    params, xs, ys, learning_rate = (
        to_jax(dict(model.named_parameters())),
        jnp.array(x),
        jnp.array(y),
        jnp.array(LEARNING_RATE),
    )
    train = jax.jit(jax_train)
    return lambda: train(params, learning_rate, xs, ys)[1].block_until_ready()


def _torch(model: nn.Module, x: Tensor, y: Tensor, *, compiled: str = "", **options: bool) -> Whole:
    model, loss_fn = copy.deepcopy(model), nn.MSELoss()
    initial = [leaf.detach().clone() for leaf in model.parameters()]
    learning_rate = torch.tensor(LEARNING_RATE) if compiled == "step" else LEARNING_RATE
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, **options)

    def forward() -> Tensor:
        return loss_fn(model(x), y)

    objective = torch.compile(forward) if compiled == "loss" else forward

    def plain() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        optimizer.step()
        return loss

    step = torch.compile(plain) if compiled == "step" else plain

    def run() -> Tensor:
        with torch.no_grad():
            for leaf, first in zip(model.parameters(), initial, strict=True):
                leaf.copy_(first)
                for value in optimizer.state[leaf].values():  # in place, or a compiled step is compiled again
                    value.zero_()
        for _ in range(STEPS):
            loss = step()
        return loss.detach()

    return run


def functional_step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[..., tuple]:
    """Return a step of torch.func and a leafwise Adam, from (parameters, mean, square, count) to these and a loss."""
    loss_fn = nn.MSELoss()
    gradient = grad_and_value(lambda p: loss_fn(functional_call(model, p, (x,)), y))

    def step(p: dict, mean: dict, square: dict, count: Tensor) -> tuple:
        g, loss = gradient(p)
        count = count + 1
        c1, c2 = 1 - 0.9**count, 1 - 0.999**count
        mean = {k: 0.9 * mean[k] + 0.1 * g[k] for k in g}
        square = {k: 0.999 * square[k] + 0.001 * g[k] ** 2 for k in g}
        p = {k: p[k] - LEARNING_RATE * (mean[k] / c1) / ((square[k] / c2).sqrt() + 1e-8) for k in g}
        return (p, mean, square, count), loss

    return step


def _functional(model: nn.Module, x: Tensor, y: Tensor) -> Whole:
    step = torch.compile(functional_step(model, x, y), fullgraph=True)
    initial = {name: leaf.detach() for name, leaf in model.named_parameters()}

    def run() -> Tensor:
        zeros = [{name: torch.zeros_like(leaf) for name, leaf in initial.items()} for _ in range(2)]
        carry = (initial, *zeros, torch.zeros(()))
        for _ in range(STEPS):
            carry, loss = step(*carry)
        return loss

    return run


def _torchopt(model: nn.Module, x: Tensor, y: Tensor, **options: bool) -> Whole:
    import torchopt

    objective, initial = _objective(model, x, y)

    def run() -> Tensor:
        params = tuple(leaf.clone().requires_grad_() for leaf in initial)
        optimizer = torchopt.FuncOptimizer(torchopt.adam(lr=LEARNING_RATE, **options))
        for _ in range(STEPS):
            loss = objective(params)
            params = tuple(leaf.detach().requires_grad_() for leaf in optimizer.step(loss, params))
        return loss.detach()

    return run


def _torchopt_functions(model: nn.Module, x: Tensor, y: Tensor) -> Whole:
    import torchopt

    objective, initial = _objective(model, x, y)
    optimizer = torchopt.adam(lr=LEARNING_RATE, moment_requires_grad=False)

    def run() -> Tensor:
        params = tuple(leaf.clone().requires_grad_() for leaf in initial)
        state = optimizer.init(params)
        for _ in range(STEPS):
            loss = objective(params)
            updates, state = optimizer.update(torch.autograd.grad(loss, params), state, inplace=False)
            moved = torchopt.apply_updates(params, updates, inplace=False)
            params = tuple(leaf.detach().requires_grad_() for leaf in moved)
        return loss.detach()

    return run


def _objective(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Callable[[tuple], Tensor], tuple[Tensor, ...]]:
    """Return the loss as a function of a tuple of parameters, and their initial values."""
    names, loss_fn = [name for name, _ in model.named_parameters()], nn.MSELoss()
    initial = tuple(leaf.detach() for leaf in model.parameters())
    return lambda params: loss_fn(functional_call(model, dict(zip(names, params, strict=True)), (x,)), y), initial

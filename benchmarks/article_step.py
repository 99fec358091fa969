"""One training step (gradient and update) of the article's network on its 40 points, with Adam at learning rate 0.01.

Every program starts at the same parameters; before any timing their losses after 300 steps are compared.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call, grad_and_value

import torchpure as tp

from ._article import SimpleNN, data, have
from ._harness import Run, report, times

LEARNING_RATE = 0.01
OURS = "torchpure"
SETTINGS = {
    OURS: "value_and_grad + optim.adam(0.01).step, eager, float32",
    "torch.optim.Adam": "module, backward, step; its defaults (for-loop on CPU), zero_grad to None",
    "torch.optim.Adam foreach": "the same with foreach=True",
    "torch.optim.Adam fused": "the same with fused=True",
    "torch.func, naive": "grad_and_value of functional_call, Adam leaf by leaf",
    "torchopt": "FuncOptimizer(adam), as in the article; parameters detached after each step, or its graph grows",
    "JAX": "jit of the whole step, optax.adam, one thread",
}


def main() -> None:
    """Compare the peers that are installed."""
    net = tp.functional(SimpleNN)
    params, _ = net.init(tp.random.key(0))
    model = net.to_module(params)
    x, y = data()
    makers: dict[str, Callable[..., tuple[Run, Callable[[], float]]]] = {
        OURS: torchpure_step,
        "torch.optim.Adam": lambda *data: torch_step(*data),
        "torch.optim.Adam foreach": lambda *data: torch_step(*data, foreach=True),
        "torch.optim.Adam fused": lambda *data: torch_step(*data, fused=True),
        "torch.func, naive": naive_step,
    }
    if have("torchopt"):
        makers["torchopt"] = torchopt_step
    if have("jax", "optax"):
        makers["JAX"] = jax_step
    check_same_work({name: make(model, x, y) for name, make in makers.items()})
    rows = times({name: make(model, x, y)[0] for name, make in makers.items()}, 1000)
    bars = {"torch.optim.Adam": 0.75, "torch.optim.Adam fused": 1.1}
    report("article step: 40 points, 5 neurons, Adam", rows, OURS, bars, SETTINGS)


def check_same_work(programs: dict[str, tuple[Run, Callable[[], float]]]) -> None:
    """Stop when a program does not reach the loss that the others do."""
    losses = {}
    for name, (run, loss) in programs.items():
        run(300)
        losses[name] = loss()
    wanted = losses["torch.optim.Adam"]
    odd = {name: loss for name, loss in losses.items() if not math.isclose(loss, wanted, rel_tol=1e-3)}
    if odd:
        raise SystemExit(f"article step: programs differ: loss {wanted:.6g} after 300 steps, but {odd}")


def torchpure_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[Run, Callable[[], float]]:
    """Train with this library."""
    net, optimizer, loss_fn = tp.functional(model), tp.optim.adam(LEARNING_RATE), nn.MSELoss()
    gradient = tp.value_and_grad(lambda params: loss_fn(net(params, x), y))
    params, state, loss = net.params, optimizer.init(net.params), torch.zeros(())

    def run(count: int) -> None:
        nonlocal params, state, loss
        for _ in range(count):
            loss, grads = gradient(params)
            params, state = optimizer.step(grads, state, params)

    return run, lambda: loss.item()


def torch_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **options: bool) -> tuple[Run, Callable[[], float]]:
    """Train the module in place."""
    model, loss_fn = copy.deepcopy(model), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, **options)
    loss = torch.zeros(())

    def run(count: int) -> None:
        nonlocal loss
        for _ in range(count):
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()

    return run, lambda: loss.item()


def naive_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[Run, Callable[[], float]]:
    """Train with torch.func and a leafwise Adam, as one would write it by hand."""
    loss_fn = nn.MSELoss()
    gradient = grad_and_value(lambda p: loss_fn(functional_call(model, p, (x,)), y))
    params = {name: value.detach().clone() for name, value in model.named_parameters()}
    mean = {name: torch.zeros_like(value) for name, value in params.items()}
    square = {name: torch.zeros_like(value) for name, value in params.items()}
    step, loss = torch.zeros(()), torch.zeros(())

    def run(count: int) -> None:
        nonlocal params, mean, square, step, loss
        for _ in range(count):
            g, loss = gradient(params)
            step = step + 1
            c1, c2 = 1 - 0.9**step, 1 - 0.999**step
            mean = {k: 0.9 * mean[k] + 0.1 * g[k] for k in g}
            square = {k: 0.999 * square[k] + 0.001 * g[k] ** 2 for k in g}
            params = {k: params[k] - LEARNING_RATE * (mean[k] / c1) / ((square[k] / c2).sqrt() + 1e-8) for k in g}

    return run, lambda: loss.item()


def torchopt_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[Run, Callable[[], float]]:
    """Train as the article does."""
    import torchopt

    names, loss_fn = [name for name, _ in model.named_parameters()], nn.MSELoss()
    params = tuple(value.detach().clone().requires_grad_() for value in model.parameters())
    optimizer = torchopt.FuncOptimizer(torchopt.adam(lr=LEARNING_RATE))
    loss = torch.zeros(())

    def run(count: int) -> None:
        nonlocal params, loss
        for _ in range(count):
            loss = loss_fn(functional_call(model, dict(zip(names, params, strict=True)), (x,)), y)
            params = tuple(value.detach().requires_grad_() for value in optimizer.step(loss, params))

    return run, lambda: loss.item()


def jax_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[Run, Callable[[], float]]:
    """Train with JAX, the whole step compiled."""
    import jax
    import jax.numpy as jnp
    import optax

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    params = [(jnp.array(layer.weight.detach().numpy()), jnp.array(layer.bias.detach().numpy())) for layer in layers]
    xs, ys, optimizer = jnp.array(x.numpy()), jnp.array(y.numpy()), optax.adam(LEARNING_RATE)

    def objective(p: list) -> jax.Array:
        (w0, b0), (w1, b1), (w2, b2) = p
        hidden = jnp.tanh((xs[:, None] @ w0.T + b0) @ w1.T + b1)
        return jnp.mean(((hidden @ w2.T + b2).squeeze() - ys) ** 2)

    @jax.jit
    def step(p: list, s: tuple) -> tuple:
        loss, grads = jax.value_and_grad(objective)(p)
        updates, s = optimizer.update(grads, s, p)
        return optax.apply_updates(p, updates), s, loss

    state, loss = optimizer.init(params), jnp.zeros(())

    def run(count: int) -> None:
        nonlocal params, state, loss
        for _ in range(count):
            params, state, loss = step(params, state)
        loss.block_until_ready()

    return run, lambda: float(loss)

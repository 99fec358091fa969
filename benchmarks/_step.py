"""One training step of a classifier, compiled, against torch.compile and JAX: what two figures share."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchpure as tp

from ._harness import Program

OURS = "torchpure"
JAX = "JAX"
COMPILED: dict[str, dict[str, Any]] = {
    "torch.compile, fused": {"loss": {}, "fused": True},
    "torch.compile, fused, max-autotune": {"loss": {"mode": "max-autotune-no-cudagraphs"}, "fused": True},
    "torch.compile, step": {"step": {}},
    "torch.compile, step, max-autotune": {"step": {"mode": "max-autotune-no-cudagraphs"}},
    "torch.compile, loss and update": {"loss": {}, "update": {}},
}
SETTINGS = {
    OURS: "jit of the step, parameters and state donated",
    JAX: "jit of the step with optax, parameters and state donated",
    "torch.optim fused": "module, backward, fused=True, eager",
    "torch.compile, fused": "model and loss compiled, backward, fused=True eager",
    "torch.compile, fused, max-autotune": "the same in mode max-autotune-no-cudagraphs",
    "torch.compile, step": "the whole step compiled; it breaks in two at backward; its learning rate is a tensor",
    "torch.compile, step, max-autotune": "the same in mode max-autotune-no-cudagraphs",
    "torch.compile, loss and update": "model and loss compiled, and optimizer.step too; its learning rate is a tensor",
}


class Work(NamedTuple):
    """What every program trains, and on what."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor  # classes, in one dimension
    learning_rate: float
    torch_optimizer: Callable[..., torch.optim.Optimizer]  # (parameters, lr=, fused=)
    optimizer: tp.optim.Optimizer


def torch_programs(work: Work) -> dict[str, Program]:
    """Make the programs of PyTorch: eager, and compiled in several ways."""
    made = {"torch.optim fused": torch_step(work, fused=True)}
    return made | {name: torch_step(work, **how) for name, how in COMPILED.items()}


def torchpure_step(work: Work) -> Program:
    """Train with this library."""
    net = tp.functional(work.model)

    def objective(params: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(net(params, inputs).flatten(0, -2), targets)

    def step(params: dict[str, Tensor], state: Any, inputs: Tensor, targets: Tensor) -> tuple:
        loss, grads = tp.value_and_grad(objective)(params, inputs, targets)
        params, state = work.optimizer.step(grads, state, params)
        return params, state, loss

    compiled = tp.jit(step, donate=(0, 1))
    params = {name: leaf.clone() for name, leaf in net.params.items()}
    state, loss = work.optimizer.init(params), torch.zeros(())

    def run(count: int) -> None:
        nonlocal params, state, loss
        for _ in range(count):
            params, state, loss = compiled(params, state, work.inputs, work.targets)

    return run, lambda: loss.item()


def torch_step(
    work: Work, *, loss: dict | None = None, step: dict | None = None, update: dict | None = None, fused: bool = False
) -> Program:
    """Train the module in place; what is given options of torch.compile is compiled with them."""
    model = copy.deepcopy(work.model)
    learning_rate = torch.tensor(work.learning_rate) if step is not None or update is not None else work.learning_rate
    optimizer = work.torch_optimizer(model.parameters(), lr=learning_rate, **({"fused": True} if fused else {}))

    def forward() -> Tensor:
        return F.cross_entropy(model(work.inputs).flatten(0, -2), work.targets)

    objective = forward if loss is None else torch.compile(forward, **loss)
    move = optimizer.step if update is None else torch.compile(lambda: optimizer.step(), **update)

    def plain() -> Tensor:
        value = objective()
        value.backward()
        move()
        optimizer.zero_grad()  # at the end, so that no program holds gradients between its steps
        return value.detach()

    once, last = plain if step is None else torch.compile(plain, **step), torch.zeros(())

    def run(count: int) -> None:
        nonlocal last
        for _ in range(count):
            last = once()

    return run, lambda: last.item()


def jax_step(work: Work, forward: Callable[[dict, Any], Any], optimizer: Any) -> Program:
    """Train with JAX, given the forward pass over parameters by name, and an optimizer of optax."""
    import jax
    import jax.numpy as jnp
    import optax

    params = {name: jnp.array(leaf.detach().numpy()) for name, leaf in work.model.named_parameters()}
    inputs, targets = jnp.array(work.inputs.numpy()), jnp.array(work.targets.numpy())

    def objective(params: dict, inputs: Any, targets: Any) -> Any:
        logits = forward(params, inputs)
        logits = logits.reshape(-1, logits.shape[-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def step(params: dict, state: Any, inputs: Any, targets: Any) -> tuple:
        loss, grads = jax.value_and_grad(objective)(params, inputs, targets)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    state, loss = optimizer.init(params), jnp.zeros(())

    def run(count: int) -> None:
        nonlocal params, state, loss
        for _ in range(count):
            params, state, loss = compiled(params, state, inputs, targets)
        jax.block_until_ready((params, state, loss))

    return run, lambda: float(loss)

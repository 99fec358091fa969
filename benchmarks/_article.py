"""The article's network and training run, for this library and for JAX: what several figures share."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import torchpure as tp

POINTS, STEPS = 40, 500


class SimpleNN(nn.Module):
    """The article's network."""

    def __init__(self, num_layers: int = 1, num_neurons: int = 5) -> None:
        super().__init__()
        hidden = [layer for _ in range(num_layers) for layer in (nn.Linear(num_neurons, num_neurons), nn.Tanh())]
        self.network = nn.Sequential(nn.Linear(1, num_neurons), *hidden, nn.Linear(num_neurons, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map points of shape (n,) to values of shape (n,)."""
        return self.network(x.reshape(-1, 1)).squeeze()


def data() -> tuple[Tensor, Tensor]:
    """Return the article's points and values."""
    x = tp.random.uniform(tp.random.key(1), (POINTS,), high=2 * math.pi)
    return x, 2 * torch.sin(x + 2 * math.pi)


def have(*packages: str) -> bool:
    """Tell whether these are installed."""
    return all(importlib.util.find_spec(package) for package in packages)


def last(losses: Any) -> float:
    """Return the last of these losses, of torch or JAX."""
    return float(np.asarray(losses).reshape(-1)[-1])


def training(net: tp.Functional) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    """Return the whole run as a function of parameters, learning rate and data: (trained parameters, losses)."""
    loss_fn = nn.MSELoss()

    def train(params: dict[str, Tensor], learning_rate: Any, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        optimizer = tp.optim.adam(learning_rate)
        gradient = tp.value_and_grad(lambda params: loss_fn(net(params, x), y))

        def body(carry: tuple, _: None) -> tuple[tuple, Tensor]:
            params, state = carry
            loss, grads = gradient(params)
            return optimizer.step(grads, state, params), loss

        (params, _), losses = tp.scan(body, (params, optimizer.init(params)), None, length=STEPS)
        return params, losses

    return train


def to_jax(params: dict[str, Tensor]) -> list[tuple[Any, Any]]:
    """Copy parameters of the article's network to JAX, as (weight, bias) of each layer; members stay in front."""
    import jax.numpy as jnp

    arrays = [jnp.array(leaf.detach().numpy()) for leaf in params.values()]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def jax_forward(params: list[tuple[Any, Any]], x: Any) -> Any:
    """Apply the article's network: all layers but the first and the last end with a tanh."""
    import jax.numpy as jnp

    hidden = x.reshape(-1, 1)
    for i, (weight, bias) in enumerate(params):
        hidden = hidden @ weight.T + bias
        if 0 < i < len(params) - 1:
            hidden = jnp.tanh(hidden)
    return hidden.squeeze()


def jax_train(params: list, learning_rate: Any, x: Any, y: Any) -> tuple[list, Any]:
    """Train as `training` does."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(learning_rate)
    gradient = jax.value_and_grad(lambda params: jnp.mean((jax_forward(params, x) - y) ** 2))

    def body(carry: tuple, _: None) -> tuple[tuple, Any]:
        params, state = carry
        loss, grads = gradient(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, _), losses = jax.lax.scan(body, (params, optimizer.init(params)), None, length=STEPS)
    return params, losses

"""A network with attention over 16 particles in 3 dimensions: two layers, 4 heads, width 64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchpure as tp

PARTICLES, BATCH, WIDTH, HEADS, LAYERS = 16, 32, 64, 4, 2


class Layer(nn.Module):
    """Attention and a layer of tanh, both residual."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.mix = (nn.Linear(WIDTH, size) for size in (3 * WIDTH, WIDTH, WIDTH))

    def forward(self, h: Tensor) -> Tensor:
        """Map features of shape (particle, width)."""
        heads = (part.unflatten(-1, (HEADS, -1)).transpose(0, 1) for part in self.qkv(h).chunk(3, -1))
        h = h + self.out(F.scaled_dot_product_attention(*heads).transpose(0, 1).flatten(1))
        return h + torch.tanh(self.mix(h))


class Network(nn.Module):
    """A scalar of the positions of all particles."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 1)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])

    def forward(self, x: Tensor) -> Tensor:
        """Map positions of shape (particle, 3) to a scalar."""
        h = torch.tanh(self.first(x))
        for layer in self.layers:
            h = layer(h)
        return self.last(torch.tanh(h)).sum()


def network() -> tuple[tp.Functional, Tensor]:
    """Return the network and positions of shape (batch, particle, 3)."""
    return tp.functional(Network()), tp.random.normal(tp.random.key(3), (BATCH, PARTICLES, 3))


def in_jax(net: tp.Functional) -> tuple[Callable[[Any, Any], Any], Any]:
    """Return the network as a function of JAX, and its parameters."""
    import jax
    import jax.numpy as jnp

    params = {name: jnp.array(leaf.detach()) for name, leaf in net.to_module().named_parameters()}

    def apply(params: Any, x: Any) -> Any:
        linear = lambda name, h: h @ params[f"{name}.weight"].T + params[f"{name}.bias"]  # noqa: E731
        split = lambda h: h.reshape(PARTICLES, HEADS, -1).transpose(1, 0, 2)  # noqa: E731
        h = jnp.tanh(linear("first", x))
        for number in range(LAYERS):
            query, key, value = map(split, jnp.split(linear(f"layers.{number}.qkv", h), 3, -1))
            weights = jax.nn.softmax(query @ key.transpose(0, 2, 1) / (WIDTH / HEADS) ** 0.5, -1)
            h = h + linear(f"layers.{number}.out", (weights @ value).transpose(1, 0, 2).reshape(PARTICLES, WIDTH))
            h = h + jnp.tanh(linear(f"layers.{number}.mix", h))
        return linear("last", jnp.tanh(h)).sum()

    return apply, params

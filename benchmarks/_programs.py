"""Programs of several sizes whose compilation is measured: value and gradient of a loss, here and in peers."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchpure as tp

WIDTH, VISCOSITY = 20, 0.01
Arguments = tuple[Any, ...]


class Case(NamedTuple):
    """One program."""

    make: Callable[[], tuple[Callable[..., Any], Arguments]]  # value and gradient, with this library
    by_torch: Callable[[], tuple[Callable[..., Any], Arguments, nn.Module | None]]  # with a module: its loss alone
    by_jax: Callable[[], tuple[Callable[..., Any], Arguments]] | None = None  # value and gradient, with JAX


def _network(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def _supervised(module: nn.Module, inputs: Tensor, classes: int) -> Case:
    """Make the case of a classifier: cross entropy on one batch."""
    targets = torch.randint(0, classes, (len(inputs),), generator=torch.Generator().manual_seed(2))

    def ours() -> tuple[Callable[..., Any], Arguments]:
        net = tp.functional(module)

        def loss(params: dict[str, Tensor], state: Any, x: Tensor, y: Tensor) -> Tensor:
            out, _ = net.apply(params, state, x)
            return F.cross_entropy(out, y)

        return tp.value_and_grad(loss), (net.params, net.state, inputs, targets)

    return Case(ours, lambda: (lambda x, y: F.cross_entropy(module(x), y), (inputs, targets), module))


def _residual(u: Callable[..., Any], grad: Callable[..., Any]) -> Callable[..., Any]:
    """Return the residual of Burgers' equation for a field u(params, x, t)."""
    by_x, by_t = grad(u, 1), grad(u, 2)
    by_xx = grad(by_x, 1)
    return lambda p, x, t: by_t(p, x, t) + u(p, x, t) * by_x(p, x, t) - VISCOSITY * by_xx(p, x, t)


def burgers(depth: int, points: int) -> Case:
    """Make the mean square of Burgers' residual at many points, for a network of `depth` layers of 20."""
    sizes = [2, *[WIDTH] * depth, 1]
    generator = torch.Generator().manual_seed(1)
    x, t = torch.rand(points, generator=generator), torch.rand(points, generator=generator)

    def in_torch(transforms: Any) -> tuple[Callable[..., Any], dict[str, Tensor]]:
        module = _network(sizes, nn.Tanh)
        params = {name: leaf.detach() for name, leaf in module.named_parameters()}

        def u(p: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
            return torch.func.functional_call(module, p, (torch.stack([x, t]),))[0]

        residual = _residual(u, lambda f, place: transforms.grad(f, place))
        return lambda p, x, t: transforms.vmap(residual, (None, 0, 0))(p, x, t).square().mean(), params

    def ours() -> tuple[Callable[..., Any], Arguments]:
        loss, params = in_torch(tp)
        return tp.value_and_grad(loss), (params, x, t)

    def by_torch() -> Any:
        loss, params = in_torch(torch.func)
        return torch.func.grad_and_value(loss), (params, x, t), None

    def by_jax() -> tuple[Callable[..., Any], Arguments]:
        import jax
        import jax.numpy as jnp

        def u(params: Any, x: Any, t: Any) -> Any:
            hidden = jnp.stack([x, t])
            for weight, bias in params[:-1]:
                hidden = jnp.tanh(weight @ hidden + bias)
            weight, bias = params[-1]
            return (weight @ hidden + bias)[0]

        residual = jax.vmap(_residual(u, lambda f, place: jax.grad(f, place)), (None, 0, 0))
        linears = [layer for layer in _network(sizes, nn.Tanh) if isinstance(layer, nn.Linear)]
        params = [tuple(jnp.asarray(leaf.detach().numpy()) for leaf in (one.weight, one.bias)) for one in linears]
        points = (jnp.asarray(x.numpy()), jnp.asarray(t.numpy()))
        return jax.value_and_grad(lambda p, x, t: jnp.mean(residual(p, x, t) ** 2)), (params, *points)

    return Case(ours, by_torch, by_jax)


def perceptron() -> Case:
    """Make a classifier 784-256-256-10 on 128 images."""
    generator = torch.Generator().manual_seed(1)
    return _supervised(_network([784, 256, 256, 10], nn.ReLU), torch.randn(128, 784, generator=generator), 10)


def small_convolutions() -> Case:
    """Make a convolutional network with group normalisation, on 32 images."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    return _supervised(module, torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1)), 10)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def resnet18() -> Case:
    """Make a ResNet-18 (He et al. 2015, arXiv:1512.03385) for 16 images of 32 × 32."""
    torch.manual_seed(0)
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [_Block(inputs, outputs, 1 if inputs == outputs else 2) for inputs, outputs in itertools.pairwise(widths)]
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    module = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    return _supervised(module, torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)), 10)


def transformer() -> Case:
    """Make an encoder of two layers of 128, on 16 sequences of 32."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    module = nn.Sequential(encoder, nn.Flatten(), nn.Linear(32 * 128, 10))
    return _supervised(module, torch.randn(16, 32, 128, generator=torch.Generator().manual_seed(1)), 10)


class _Logits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        size = {"n_layer": 2, "n_embd": 128, "n_head": 4, "vocab_size": 1000, "n_positions": 64}
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
        self.model = GPT2LMHeadModel(GPT2Config(**size, **off))

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits[:, -1]


def gpt2() -> Case:
    """Make a GPT-2 of two layers of 128 (the class of transformers), on 8 sequences of 64 tokens."""
    torch.manual_seed(0)
    return _supervised(_Logits(), torch.randint(0, 1000, (8, 64), generator=torch.Generator().manual_seed(1)), 1000)


CASES: dict[str, Callable[[], Case]] = {
    **{f"Burgers, depth {depth}, 1,000 points": lambda depth=depth: burgers(depth, 1_000) for depth in (2, 4, 8, 16)},
    "Burgers, depth 4, 10,000 points": lambda: burgers(4, 10_000),
    "784-256-256-10, batch 128": perceptron,
    "CNN with GroupNorm, batch 32": small_convolutions,
    "transformer, 2 layers of 128": transformer,
    "GPT-2, 2 layers of 128": gpt2,
    "ResNet-18, batch 16": resnet18,
}

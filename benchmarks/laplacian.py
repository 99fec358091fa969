"""Laplacians of a tanh network D-256-256-128-128-1, and the residual of Burgers' equation: values and θ-gradients."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import torchpure as tp

from ._article import have, to_jax
from ._harness import check_same_work, repeat, report, times

THREADS = (1, 2)
SIZES = {"D=3, batch 512": (3, 512), "D=50, batch 64": (50, 64)}
OURS, FOLX, NESTED, EAGER, EAGER_NESTED = "torchpure", "JAX, folx", "nested", "eager", "eager, torch.func"
OPERATOR, JAX = "torchpure", "JAX"
SETTINGS = {
    OURS: "jit of vmap of tp.laplacian, an unmodified module",
    FOLX: "jax.jit of vmap of folx.forward_laplacian",
    NESTED: "jit of vmap of the trace of tp.hessian",
    EAGER: "vmap of tp.laplacian, not compiled",
    EAGER_NESTED: "vmap of the trace of torch.func.hessian, not compiled",
}
BURGERS = {
    OPERATOR: "jit of vmap of tp.partials(u, ('', 't', 'x', 'xx')), an unmodified module",
    JAX: "jax.jit of vmap of jvp of jvp in x, and jvp in t",
}
Loss = Callable[[Any], Any]
Work = Callable[[], Any]


def main() -> None:
    """Compare values and θ-gradients of the mean of squares, in microseconds."""
    for name, (dims, batch) in SIZES.items():
        x = tp.random.normal(tp.random.key(1), (batch, dims))
        net = tp.functional(_network([dims, 256, 256, 128, 128, 1]))
        for what, differentiate in (("value", False), ("θ-gradient", True)):
            programs = _programs(net, x, differentiate)
            _compare(f"Laplacian: {what}, {name}", programs, {FOLX: 0.8, NESTED: 0.35, EAGER_NESTED: 1.0}, SETTINGS)
    points = 2 * tp.random.uniform(tp.random.key(2), (10_000, 2)) - 1
    net = tp.functional(_network([2, *[20] * 8, 1]))
    _compare("Burgers: residual and θ-gradient, 10,000 points", _burgers(net, points), {JAX: 0.9}, BURGERS)


def _compare(figure: str, programs: dict[str, Work], bars: dict[str, float], settings: dict[str, str]) -> None:
    figure = f"{figure}; {torch.get_num_threads()} thread(s)"
    check_same_work(figure, {name: _first(run()) for name, run in programs.items()}, 1e-3)
    rows = times({name: repeat(run) for name, run in programs.items()}, 20, bursts=5)
    report(f"{figure}; µs", rows, next(iter(programs)), bars, settings)


def _first(found: Any) -> float:
    return float(found[0] if isinstance(found, tuple) else found)


def _network(sizes: list[int]) -> nn.Module:
    layers = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def _programs(net: tp.Functional, x: Tensor, differentiate: bool) -> dict[str, Work]:
    params, module = net.params, net.to_module()
    plain = {name: leaf.detach() for name, leaf in module.named_parameters()}

    def loss(laplacian: Callable[..., Any]) -> Loss:
        return lambda params: (tp.vmap(laplacian(lambda at: net(params, at)[0]))(x) ** 2).mean()

    def eager_nested(params: Any) -> Tensor:
        value = lambda at: torch.func.functional_call(module, params, at)[0]  # noqa: E731
        return (torch.func.vmap(lambda at: torch.func.hessian(value)(at).trace())(x) ** 2).mean()

    ours = tp.value_and_grad if differentiate else lambda fn: fn
    compiled, nested = tp.jit(ours(loss(tp.laplacian))), tp.jit(ours(loss(_trace)))
    eager = ours(loss(tp.laplacian))
    theirs = torch.func.grad_and_value(eager_nested) if differentiate else eager_nested
    programs: dict[str, Work] = {OURS: lambda: compiled(params)}
    if have("jax", "folx"):
        programs[FOLX] = _folx(net, x, differentiate)
    programs |= {NESTED: lambda: nested(params), EAGER: lambda: eager(params)}
    swapped = (lambda: theirs(plain)[::-1]) if differentiate else lambda: theirs(plain)
    return programs | {EAGER_NESTED: swapped}


def _trace(u: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda at: tp.hessian(u)(at).diagonal().sum()


def _layers(params: list, at: Any) -> Any:
    import jax.numpy as jnp

    for number, (weight, bias) in enumerate(params):
        at = weight @ at + bias
        at = jnp.tanh(at) if number < len(params) - 1 else at[0]
    return at


def _folx(net: tp.Functional, x: Tensor, differentiate: bool) -> Work:
    import folx
    import jax
    import jax.numpy as jnp

    xs, params = jnp.array(x), to_jax(net.params)

    def loss(params: list) -> Any:
        one = lambda at: folx.forward_laplacian(lambda at: _layers(params, at))(at).laplacian  # noqa: E731
        return jnp.mean(jax.vmap(one)(xs) ** 2)

    run = jax.jit(jax.value_and_grad(loss) if differentiate else loss)
    return lambda: jax.block_until_ready(run(params))


def _burgers(net: tp.Functional, points: Tensor) -> dict[str, Work]:
    viscosity = 0.01 / torch.pi

    def residual(params: Any, at: Tensor) -> Tensor:
        parts = tp.partials(lambda at: net(params, at)[0], ("", "t", "x", "xx"), coordinates="xt")
        u, u_t, u_x, u_xx = parts(at)
        return u_t + u * u_x - viscosity * u_xx

    run = tp.jit(tp.value_and_grad(lambda params: (tp.vmap(lambda at: residual(params, at))(points) ** 2).mean()))
    programs: dict[str, Work] = {OPERATOR: lambda: run(net.params)}
    if have("jax"):
        programs[JAX] = _burgers_jax(net, points, viscosity)
    return programs


def _burgers_jax(net: tp.Functional, points: Tensor, viscosity: float) -> Work:
    import jax
    import jax.numpy as jnp

    xs, params = jnp.array(points), to_jax(net.params)
    e_x, e_t = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])

    def residual(params: list, at: Any) -> Any:
        u = lambda at: _layers(params, at)  # noqa: E731
        first = lambda at: jax.jvp(u, (at,), (e_x,))  # noqa: E731
        (value, u_x), (_, u_xx) = jax.jvp(first, (at,), (e_x,))
        u_t = jax.jvp(u, (at,), (e_t,))[1]
        return u_t + value * u_x - viscosity * u_xx

    loss = lambda params: jnp.mean(jax.vmap(lambda at: residual(params, at))(xs) ** 2)  # noqa: E731
    run = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(run(params))

"""The residual of Burgers' equation, u_t + u u_x - ν u_xx, of a tanh network 2-20×8-1: values and θ-gradients.

10,000 points compiled, against the forms that one writes in JAX; 1,000 points in eager code, against torch's autograd
over a batch.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import torchpure as tp

from ._article import have, to_jax
from ._harness import check_same_work, repeat, report, times

THREADS = (1, 2)
VISCOSITY = 0.01 / torch.pi
OURS, AUTOGRAD, NESTED = "torchpure", "torch, batched double backward", "torch.func, vmap(grad(grad))"
JAX_JVP, JAX_GRAD, JAX_JET = "JAX, jvp of jvp", "JAX, grad of grad", "JAX, jet"
SETTINGS = {
    OURS: "vmap of tp.partials(u, ('', 't', 'x', 'xx')), an unmodified module",
    JAX_JVP: "jax.jit of vmap of jvp of jvp in x, and jvp in t",
    JAX_GRAD: "jax.jit of vmap of grad of grad in x, and grad in t",
    JAX_JET: "jax.jit of vmap of jet of order two in x, and jvp in t",
    AUTOGRAD: "torch.autograd.grad of sums over the batch, twice, create_graph",
    NESTED: "torch.func.grad of grad in x and grad in t, under vmap",
}
Work = Callable[[], Any]


def main() -> None:
    """Compare values and θ-gradients of the mean of squares, in microseconds."""
    net = tp.functional(_network([2, *[20] * 8, 1]))
    for what, differentiate in (("residual", False), ("residual and θ-gradient", True)):
        points = _points(10_000)
        programs = {OURS: _compiled(net, points, differentiate)}
        if have("jax"):
            programs |= _jax(net, points, differentiate)
        bars = dict.fromkeys((JAX_JVP, JAX_GRAD, JAX_JET), 0.9)
        _compare(f"Burgers: {what}, 10,000 points, compiled", programs, bars)
        points = _points(1_000)
        programs = {OURS: _eager(net, points, differentiate), AUTOGRAD: _autograd(net, points, differentiate)}
        programs[NESTED] = _nested(net, points, differentiate)
        _compare(f"Burgers: {what}, 1,000 points, eager", programs, {AUTOGRAD: 1.0})


def _compare(figure: str, programs: dict[str, Work], bars: dict[str, float]) -> None:
    figure = f"{figure}; {torch.get_num_threads()} thread(s)"
    check_same_work(figure, {name: _first(run()) for name, run in programs.items()}, 1e-3)
    rows = times({name: repeat(run) for name, run in programs.items()}, 20, bursts=5)
    report(f"{figure}; µs", rows, OURS, bars, SETTINGS)


def _first(found: Any) -> float:
    return float(found[0] if isinstance(found, tuple) else found)


def _network(sizes: list[int]) -> nn.Module:
    layers = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def _points(count: int) -> Tensor:
    return 2 * tp.random.uniform(tp.random.key(2), (count, 2)) - 1


def _loss(net: tp.Functional, points: Tensor, differentiate: bool) -> Callable[[Any], Any]:
    def residual(params: Any, at: Tensor) -> Tensor:
        parts = tp.partials(lambda at: net(params, at)[0], ("", "t", "x", "xx"), coordinates="xt")
        u, u_t, u_x, u_xx = parts(at)
        return u_t + u * u_x - VISCOSITY * u_xx

    loss = lambda params: (tp.vmap(residual, in_dims=(None, 0))(params, points) ** 2).mean()  # noqa: E731
    return tp.value_and_grad(loss) if differentiate else loss


def _compiled(net: tp.Functional, points: Tensor, differentiate: bool) -> Work:
    run = tp.jit(_loss(net, points, differentiate))
    return lambda: run(net.params)


def _eager(net: tp.Functional, points: Tensor, differentiate: bool) -> Work:
    run = _loss(net, points, differentiate)
    return lambda: run(net.params)


def _autograd(net: tp.Functional, points: Tensor, differentiate: bool) -> Work:
    module = net.to_module()
    params = list(module.parameters())

    def run() -> Any:
        x, t = (points[:, n : n + 1].clone().requires_grad_() for n in (0, 1))
        u = module(torch.cat([x, t], 1))
        u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=differentiate)
        loss = (u_t + u * u_x - VISCOSITY * u_xx).square().mean()
        return (loss.detach(), torch.autograd.grad(loss, params)) if differentiate else loss.detach()

    return run


def _nested(net: tp.Functional, points: Tensor, differentiate: bool) -> Work:
    module = net.to_module()
    params = {name: leaf.detach() for name, leaf in module.named_parameters()}

    def residual(params: Any, x: Tensor, t: Tensor) -> Tensor:
        value = lambda x, t: torch.func.functional_call(module, params, torch.stack([x, t]))[0]  # noqa: E731
        u_x = torch.func.grad(value)
        u_xx, u_t = torch.func.grad(u_x)(x, t), torch.func.grad(value, 1)(x, t)
        return u_t + value(x, t) * u_x(x, t) - VISCOSITY * u_xx

    def loss(params: Any) -> Tensor:
        rows = torch.func.vmap(residual, in_dims=(None, 0, 0))(params, points[:, 0], points[:, 1])
        return (rows**2).mean()

    with_gradient = torch.func.grad_and_value(loss)
    return (lambda: with_gradient(params)[::-1]) if differentiate else lambda: loss(params)


def _jax(net: tp.Functional, points: Tensor, differentiate: bool) -> dict[str, Work]:
    import jax
    import jax.numpy as jnp

    xs, params = jnp.array(points), to_jax(net.params)

    def program(derivatives: Callable[..., Any]) -> Work:
        def residual(params: list, at: Any) -> Any:
            value, u_t, u_x, u_xx = derivatives(lambda x, t: _network_in_jax(params, jnp.stack([x, t])), *at)
            return u_t + value * u_x - VISCOSITY * u_xx

        loss = lambda params: jnp.mean(jax.vmap(lambda at: residual(params, at))(xs) ** 2)  # noqa: E731
        run = jax.jit(jax.value_and_grad(loss) if differentiate else loss)
        return lambda: jax.block_until_ready(run(params))

    return {JAX_JVP: program(_by_jvp), JAX_GRAD: program(_by_grad), JAX_JET: program(_by_jet)}


def _by_jvp(u: Callable[..., Any], x: Any, t: Any) -> tuple[Any, ...]:
    import jax

    first = lambda x: jax.jvp(lambda x: u(x, t), (x,), (1.0,))  # noqa: E731
    (value, u_x), (_, u_xx) = jax.jvp(first, (x,), (1.0,))
    return value, jax.jvp(lambda t: u(x, t), (t,), (1.0,))[1], u_x, u_xx


def _by_grad(u: Callable[..., Any], x: Any, t: Any) -> tuple[Any, ...]:
    import jax

    value, (u_x, u_t) = jax.value_and_grad(u, (0, 1))(x, t)
    return value, u_t, u_x, jax.grad(jax.grad(u))(x, t)


def _by_jet(u: Callable[..., Any], x: Any, t: Any) -> tuple[Any, ...]:
    import jax
    from jax.experimental.jet import jet

    value, (u_x, u_xx) = jet(lambda x: u(x, t), (x,), ([1.0, 0.0],))
    return value, jax.jvp(lambda t: u(x, t), (t,), (1.0,))[1], u_x, u_xx


def _network_in_jax(params: list, at: Any) -> Any:
    import jax.numpy as jnp

    for number, (weight, bias) in enumerate(params):
        at = weight @ at + bias
        at = jnp.tanh(at) if number < len(params) - 1 else at[0]
    return at

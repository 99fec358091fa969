"""Laplacians of a tanh network D-256-256-128-128-1 and of attention, and the residual of Burgers' equation."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import torchpure as tp

from . import _laplacian_attention as attention
from . import _laplacian_child as child
from ._article import have, to_jax
from ._harness import REPEATS, check_same_work, repeat, report, times
from ._laplacian_peers import FOLX, FORMS, HESSIAN, PUSHED, SPARSE, jax_programs

THREADS = (1, 2)
SIZES = {"D=3, batch 512": (3, 512), "D=50, batch 64": (50, 64)}
HIDDEN = [256, 256, 128, 128, 1]
OURS, NESTED, EAGER_NESTED = "torchpure", "nested", "eager, torch.func"
OPERATOR, JAX = "torchpure", "JAX"
SETTINGS = {
    OURS: "jit of vmap of tp.laplacian, an unmodified module",
    **FORMS,
    NESTED: "jit of vmap of the trace of tp.hessian",
}
EAGER = {
    OURS: "vmap of tp.laplacian, not compiled",
    EAGER_NESTED: "vmap of the trace of torch.func.hessian, not compiled",
}
BARS = {FOLX: 0.8, SPARSE: 0.8, NESTED: 0.35}
BURGERS = {
    OPERATOR: "jit of vmap of tp.partials(u, ('', 't', 'x', 'xx')), an unmodified module",
    JAX: "jax.jit of vmap of jvp of jvp in x, and jvp in t",
}
Loss = Callable[[Any], Any]
Work = Callable[[], Any]


def main() -> None:
    """Compare values and θ-gradients of the mean of squares, in microseconds; memory in MiB."""
    for name, (dims, batch) in SIZES.items():
        for what, differentiate in (("value", False), ("θ-gradient", True)):
            _compare(f"Laplacian: {what}, {name}", _programs(dims, batch, differentiate), BARS, SETTINGS)
    _compare_attention()
    if torch.get_num_threads() == 1:
        _compare_eager()
        for size in SIZES:
            rises = {name: [child.peak(name, size) for _ in range(3)] for name in (OURS, NESTED)}
            report(
                f"Laplacian: memory of the θ-gradient, {size}; MiB", rises, OURS, {NESTED: 0.5}, SETTINGS, unit="MiB"
            )
    points = 2 * tp.random.uniform(tp.random.key(2), (10_000, 2)) - 1
    net = tp.functional(_network([2, *[20] * 8, 1]))
    _compare("Burgers: residual and θ-gradient, 10,000 points", _burgers(net, points), {JAX: 0.9}, BURGERS)


def _compare_attention() -> None:
    net, x = attention.network()
    run = tp.jit(_loss(net, x, tp.laplacian))
    programs: dict[str, Work] = {OURS: lambda: run(net.params)}
    if have("jax", "folx"):
        import jax.numpy as jnp

        programs |= jax_programs(*attention.in_jax(net), jnp.array(x), differentiate=False)
    bars = dict.fromkeys((FOLX, SPARSE, HESSIAN, PUSHED), 1.0)
    _compare("Laplacian: attention, 16 particles, batch 32", programs, bars, SETTINGS)


def _compare_eager() -> None:
    first = {name: [child.first_call(name) for _ in range(REPEATS)] for name in EAGER}
    report(
        "Laplacian: first call, not compiled, D=10, batch 256; ms", first, OURS, {EAGER_NESTED: 1.0}, EAGER, unit="ms"
    )
    _compare("Laplacian: later calls, not compiled, D=10, batch 256", eager_programs(), {EAGER_NESTED: 0.4}, EAGER)


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


def _loss(net: tp.Functional, x: Tensor, laplacian: Callable[..., Any]) -> Loss:
    def loss(params: Any) -> Tensor:
        return (tp.vmap(laplacian(lambda at: net(params, at).squeeze()))(x) ** 2).mean()

    return loss


def _points(dims: int, batch: int) -> tuple[tp.Functional, Tensor]:
    return tp.functional(_network([dims, *HIDDEN])), tp.random.normal(tp.random.key(1), (batch, dims))


def compiled(name: str, dims: int, batch: int) -> Work:
    """Return the compiled θ-gradient of our Laplacian, or of the nested form."""
    net, x = _points(dims, batch)
    run = tp.jit(tp.value_and_grad(_loss(net, x, {OURS: tp.laplacian, NESTED: _trace}[name])))
    return partial(run, net.params)


def eager_programs() -> dict[str, Work]:
    """Return our Laplacian and torch's nested form, neither of them compiled."""
    net, x = _points(10, 256)
    module = net.to_module()
    plain = {name: leaf.detach() for name, leaf in module.named_parameters()}

    def nested() -> Tensor:
        value = lambda at: torch.func.functional_call(module, plain, at)[0]  # noqa: E731
        return (torch.func.vmap(lambda at: torch.func.hessian(value)(at).trace())(x) ** 2).mean()

    return {OURS: partial(_loss(net, x, tp.laplacian), net.params), EAGER_NESTED: nested}


def _programs(dims: int, batch: int, differentiate: bool) -> dict[str, Work]:
    net, x = _points(dims, batch)
    ours = tp.value_and_grad if differentiate else lambda fn: fn
    run, nested = (tp.jit(ours(_loss(net, x, form))) for form in (tp.laplacian, _trace))
    programs: dict[str, Work] = {OURS: lambda: run(net.params)}
    if have("jax", "folx"):
        import jax.numpy as jnp

        programs |= jax_programs(_layers, to_jax(net.params), jnp.array(x), differentiate)
    return programs | {NESTED: lambda: nested(net.params)}


def _trace(u: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda at: tp.hessian(u)(at).diagonal().sum()


def _layers(params: list, at: Any) -> Any:
    import jax.numpy as jnp

    for number, (weight, bias) in enumerate(params):
        at = weight @ at + bias
        at = jnp.tanh(at) if number < len(params) - 1 else at[0]
    return at


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

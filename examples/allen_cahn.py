"""The equation of Allen and Cahn: u_t = ν u_xx + 5 (u - u³) on [-1, 1] × [0, 1], periodic, ν = 1e-3.

The initial value is (1 - cos πx) cos(πx) / 2. Fronts steepen from it. A network learns them from the residual: Adam,
then L-BFGS. It sees cosines of x, so that u is periodic and even; the initial value is hard: u = u_0 + t net. The
reference is a Fourier method with split steps: diffusion and reaction in turn, each solved exactly.

    python examples/allen_cahn.py
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import torchpure as tp

NU, PI = 1e-3, torch.pi
Params = dict[str, Tensor]


def initial(x: Tensor) -> Tensor:
    return (1 - torch.cos(PI * x)) * torch.cos(PI * x) / 2


def reference(times: int = 101, nodes: int = 512, steps: int = 20) -> Tensor:
    """Return the solution, of shape (times, nodes), at x = -1 + 2i / nodes."""
    waves, dt = PI * torch.arange(nodes // 2 + 1, dtype=torch.float64), 1 / (times - 1) / steps
    decay, growth = torch.exp(-NU * waves**2 * dt / 2), math.exp(5 * dt)
    diffuse = lambda u: torch.fft.irfft(decay * torch.fft.rfft(u), nodes)  # noqa: E731
    react = lambda u: growth * u / (1 + (growth**2 - 1) * u**2).sqrt()  # noqa: E731
    found = [initial(-1 + 2 * torch.arange(nodes, dtype=torch.float64) / nodes)]
    for _ in range(times - 1):
        found.append(tp.fori_loop(0, steps, lambda _, u: diffuse(react(diffuse(u))), found[-1]))
    return torch.stack(found)


LAYERS = (nn.Linear(9, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
NET = tp.functional(nn.Sequential(*LAYERS).double())


def u(params: Params, x: Tensor, t: Tensor) -> Tensor:
    return initial(x) + t * NET(params, torch.cat([torch.cos(PI * x * torch.arange(1, 9)), 2 * t[None] - 1]))[0]


def residual(params: Params, x: Tensor, t: Tensor) -> Tensor:
    """Return exp(-3t) (u_t - ν u_xx - 5 (u - u³)) at one point, from one pass: errors at first grow until the end."""
    value, u_t, u_xx = tp.partials(u, ("", "t", "xx"))(params, x, t)
    return torch.exp(-3 * t) * (u_t - NU * u_xx - 5 * (value - value**3))


def loss(params: Params, x: Tensor, t: Tensor) -> Tensor:
    return (tp.vmap(residual, in_dims=(None, 0, 0))(params, x, t) ** 2).mean()


def train(params: Params, at: tuple[Tensor, Tensor], adam_steps: int, lbfgs_steps: int) -> Params:
    """Run Adam in one compiled loop, then torch's L-BFGS on the compiled value and gradient."""
    adam = tp.optim.adam(tp.optim.cosine_decay_schedule(3e-3, adam_steps))

    def step(carry: tuple, _: None) -> tuple:
        value, grads = tp.value_and_grad(loss)(carry[0], *at)
        return adam.step(grads, carry[1], carry[0]), value

    run = tp.jit(lambda params: tp.scan(step, (params, adam.init(params)), None, length=adam_steps)[0][0])
    flat, unravel = tp.ravel_pytree(run(params))
    flat.requires_grad_()
    value_and_grad = tp.jit(tp.value_and_grad(lambda flat: loss(unravel(flat), *at)))
    lbfgs = torch.optim.LBFGS([flat], max_iter=lbfgs_steps, history_size=50, line_search_fn="strong_wolfe")

    def closure() -> float:
        value, flat.grad = value_and_grad(flat.detach())
        return float(value)

    lbfgs.step(closure)
    return unravel(flat.detach())


def main(adam_steps: int = 1500, lbfgs_steps: int = 1500, points: int = 2000, picture: str | None = None) -> float:
    """Train, and return the relative error of the solution in L2."""
    params, _ = NET.init(tp.random.key(0))
    x, t = tp.random.uniform(tp.random.key(1), (2, points), dtype=torch.float64)  # u is even: x in [0, 1]
    x[: points // 2] = 0.5 + 0.2 * (x[: points // 2] - 0.5)  # the front is at x = 0.5
    params = train(params, (x, t), adam_steps, lbfgs_steps)
    wanted = reference()
    line, times = torch.linspace(-1, 1, 513).double()[:-1], torch.linspace(0, 1, 101).double()
    found = tp.vmap(tp.vmap(u, in_dims=(None, 0, None)), in_dims=(None, None, 0))(params, line, times)
    error = float((found - wanted).norm() / wanted.norm())
    print(f"residual {loss(params, x, t):.2e}, relative error {error:.2e}")
    if picture:
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
        for axis, title, values in zip(axes, ("u", "error"), (found, found - wanted), strict=True):
            figure.colorbar(axis.imshow(values.T.numpy(), origin="lower", extent=(0, 1, -1, 1), aspect="auto"), ax=axis)
            axis.set(title=title, xlabel="t", ylabel="x")
        figure.savefig(picture, dpi=70, bbox_inches="tight")
    return error


if __name__ == "__main__":
    main(picture="allen_cahn.png")

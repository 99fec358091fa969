"""Burgers' equation: u_t + u u_x = ν u_xx on [-1, 1] × [0, 1], ν = 0.01/π, u = -sin(πx) at t = 0 and 0 at the ends.

A network learns it from the residual: Adam, then L-BFGS. Initial and boundary values are hard:
u = -sin(πx) + t (1 - x²) net.
The reference is the exact solution by the transform of Cole and Hopf, an integral that is computed by quadrature.

    python examples/burgers.py
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

import torchpure as tp

NU = 0.01 / math.pi
Params = dict[str, Tensor]


def exact(x: Tensor, t: Tensor) -> Tensor:
    """Integrate the solution of Cole and Hopf by the rule of Gauss and Hermite; `t` is positive."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite.hermgauss(200))
    at = math.pi * (x[..., None] - 2 * (NU * t[..., None]).sqrt() * nodes)
    power = -at.cos() / (2 * math.pi * NU)
    kernel = weights * torch.exp(power - power.amax(-1, keepdim=True))
    return -(at.sin() * kernel).sum(-1) / kernel.sum(-1)


NET = tp.functional(
    nn.Sequential(nn.Linear(2, 32), *[nn.Tanh(), nn.Linear(32, 32)] * 3, nn.Tanh(), nn.Linear(32, 1)).double()
)


def u(params: Params, x: Tensor, t: Tensor) -> Tensor:
    """Return the solution at one point."""
    return -torch.sin(math.pi * x) + t * (1 - x**2) * NET(params, torch.stack([x, t]))[0]


def residual(params: Params, x: Tensor, t: Tensor) -> Tensor:
    """Return u_t + u u_x - ν u_xx at one point, from one pass."""
    value, u_t, u_x, u_xx = tp.partials(u, ("", "t", "x", "xx"))(params, x, t)
    return u_t + value * u_x - NU * u_xx


def loss(params: Params, x: Tensor, t: Tensor) -> Tensor:
    """Return the mean of squares."""
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


def main(adam_steps: int = 3000, lbfgs_steps: int = 3000, points: int = 4000, picture: str | None = None) -> float:
    """Train, and return the relative error of the solution in L2."""
    params, _ = NET.init(tp.random.key(0))
    x, t = tp.random.uniform(tp.random.key(1), (2, points), dtype=torch.float64)
    x = 2 * x - 1
    x[: points // 4] *= 0.1  # the shock is at x = 0
    params = train(params, (x, t), adam_steps, lbfgs_steps)
    grid_x, grid_t = torch.meshgrid(*(torch.linspace(a, 1, 200).double() for a in (-1, 0.01)), indexing="ij")
    wanted = exact(grid_x, grid_t)
    found = tp.vmap(u, in_dims=(None, 0, 0))(params, grid_x.reshape(-1), grid_t.reshape(-1)).reshape(wanted.shape)
    error = float((found - wanted).norm() / wanted.norm())
    print(f"residual {loss(params, x, t):.2e}, relative error {error:.2e}")
    if picture:
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
        for axis, title, values in zip(axes, ("u", "error"), (found, found - wanted), strict=True):
            figure.colorbar(
                axis.imshow(values.T.numpy(), origin="lower", extent=(-1, 1, 0.01, 1), aspect="auto"), ax=axis
            )
            axis.set(title=title, xlabel="x", ylabel="t")
        figure.savefig(picture, dpi=70, bbox_inches="tight")
    return error


if __name__ == "__main__":
    main(picture="burgers.png")

"""Helmholtz' equation on a square: Δu + k²u = f, u = 0 on the boundary, k = 8, f a narrow Gaussian.

A network learns it from the residual: Adam, then L-BFGS. The boundary condition is hard: u = x (1 - x) y (1 - y) net.
The reference is the series of sines: in this basis the equation is one division.

    python examples/helmholtz.py
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import torchpure as tp

WAVE_NUMBER, PI = 8.0, torch.pi
SOURCE = torch.tensor([0.35, 0.6], dtype=torch.float64)
Params = dict[str, Tensor]


def f(point: Tensor) -> Tensor:
    """Return the source at one point."""
    return 50 * torch.exp(-((point - SOURCE) ** 2).sum() / 0.02)


def reference(line: Tensor, modes: int = 60, nodes: int = 400) -> Tensor:
    """Return the solution on the grid line × line, from the coefficients of f in sin(mπx) sin(nπy)."""
    middle = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    number = torch.arange(1, modes + 1, dtype=torch.float64)
    sines = lambda at: torch.sin(PI * torch.outer(number, at))  # noqa: E731
    source = tp.vmap(f)(torch.cartesian_prod(middle, middle)).reshape(nodes, nodes)
    coefficients = 4 / nodes**2 * sines(middle) @ source @ sines(middle).T
    coefficients = coefficients / (WAVE_NUMBER**2 - PI**2 * (number[:, None] ** 2 + number**2))
    return sines(line).T @ coefficients @ sines(line)


LAYERS = (nn.Linear(2, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))
NET = tp.functional(nn.Sequential(*LAYERS).double())


def u(params: Params, point: Tensor) -> Tensor:
    """Return the solution at one point."""
    return NET(params, 2 * point - 1)[0] * (point * (1 - point)).prod()


def residual(params: Params, point: Tensor) -> Tensor:
    """Return Δu + k²u - f at one point, from one pass."""
    value, _, laplacian = tp.laplacian(u, argnums=1, with_value=True)(params, point)
    return laplacian + WAVE_NUMBER**2 * value - f(point)


def loss(params: Params, points: Tensor) -> Tensor:
    """Return the mean of squares."""
    return (tp.vmap(residual, in_dims=(None, 0))(params, points) ** 2).mean()


def train(params: Params, points: Tensor, adam_steps: int, lbfgs_steps: int) -> Params:
    """Run Adam in one compiled loop, then torch's L-BFGS on the compiled value and gradient."""
    adam = tp.optim.adam(tp.optim.cosine_decay_schedule(5e-3, adam_steps))

    def step(carry: tuple, _: None) -> tuple:
        value, grads = tp.value_and_grad(loss)(carry[0], points)
        return adam.step(grads, carry[1], carry[0]), value

    run = tp.jit(lambda params: tp.scan(step, (params, adam.init(params)), None, length=adam_steps)[0][0])
    flat, unravel = tp.ravel_pytree(run(params))
    flat.requires_grad_()
    value_and_grad = tp.jit(tp.value_and_grad(lambda flat: loss(unravel(flat), points)))
    lbfgs = torch.optim.LBFGS([flat], max_iter=lbfgs_steps, history_size=50, line_search_fn="strong_wolfe")

    def closure() -> float:
        value, flat.grad = value_and_grad(flat.detach())
        return float(value)

    lbfgs.step(closure)
    return unravel(flat.detach())


def main(adam_steps: int = 1000, lbfgs_steps: int = 1500, points: int = 1000, picture: str | None = None) -> float:
    """Train, and return the relative error of the solution in L2."""
    params, _ = NET.init(tp.random.key(0))
    at = tp.random.uniform(tp.random.key(1), (points, 2), dtype=torch.float64)
    params = train(params, at, adam_steps, lbfgs_steps)
    line = torch.linspace(0, 1, 101, dtype=torch.float64)
    wanted = reference(line)
    found = tp.vmap(u, in_dims=(None, 0))(params, torch.cartesian_prod(line, line)).reshape(wanted.shape)
    error = float((found - wanted).norm() / wanted.norm())
    print(f"residual {loss(params, at):.2e}, relative error {error:.2e}")
    if picture:
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
        for axis, title, values in zip(axes, ("u", "error"), (found, found - wanted), strict=True):
            figure.colorbar(axis.imshow(values.T.numpy(), origin="lower", extent=(0, 1, 0, 1), aspect="auto"), ax=axis)
            axis.set(title=title, xlabel="x", ylabel="y")
        figure.savefig(picture, dpi=70, bbox_inches="tight")
    return error


if __name__ == "__main__":
    main(picture="helmholtz.png")

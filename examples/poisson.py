"""Poisson's equation on a square: Δu = -2π² sin(πx) sin(πy), u = 0 on the boundary, by a network.

The boundary condition is hard: the network is multiplied by x (1 - x) y (1 - y). The exact solution is sin(πx) sin(πy).

    python examples/poisson.py
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import torchpure as tp

PI = torch.pi


def main(steps: int = 2000, picture: str | None = None) -> float:
    """Train, and return the relative error of the solution in L2."""
    net = tp.functional(nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)))
    params, _ = net.init(tp.random.key(0))
    optimizer = tp.optim.adam(tp.optim.cosine_decay_schedule(5e-3, steps))

    def u(params: dict[str, Tensor], point: Tensor) -> Tensor:
        return net(params, point)[0] * (point * (1 - point)).prod()

    def residual(params: dict[str, Tensor], point: Tensor) -> Tensor:
        return tp.laplacian(u, argnums=1)(params, point) + 2 * PI**2 * torch.sin(PI * point).prod()

    def loss(params: dict[str, Tensor], key: Tensor) -> Tensor:
        points = tp.random.uniform(key, (128, 2))
        return (tp.vmap(residual, in_dims=(None, 0))(params, points) ** 2).mean()

    @tp.jit
    def train(params: dict[str, Tensor], keys: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        def step(carry: tuple, key: Tensor) -> tuple:
            params, state = carry
            value, grads = tp.value_and_grad(loss)(params, key)
            return optimizer.step(grads, state, params), value

        (params, _), values = tp.scan(step, (params, optimizer.init(params)), keys)
        return params, values

    params, values = train(params, tp.random.split(tp.random.key(1), steps))
    line = torch.linspace(0, 1, 64)
    grid = torch.cartesian_prod(line, line)
    exact = torch.sin(PI * grid).prod(1)
    found = tp.vmap(u, in_dims=(None, 0))(params, grid)
    error = (found - exact).norm() / exact.norm()
    print(f"residual {values[0]:.3g} to {values[-1]:.3g}; relative error {error:.2e}")
    if picture:
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
        for axis, title, values in zip(axes, ("u", "error"), (found, found - exact), strict=True):
            shown = axis.imshow(values.reshape(64, 64).T.numpy(), origin="lower", extent=(0, 1, 0, 1), aspect="auto")
            figure.colorbar(shown, ax=axis)
            axis.set(title=title, xlabel="x", ylabel="y")
        figure.savefig(picture, dpi=70, bbox_inches="tight")
    return float(error)


if __name__ == "__main__":
    main(picture="poisson.png")

"""Poisson's equation on a square: Δu = -2π² sin(πx) sin(πy), u = 0 on the boundary, by a network.

The boundary condition is hard: the network is multiplied by x (1 - x) y (1 - y). The exact solution is sin(πx) sin(πy).

    python examples/poisson.py
"""

import torch
from torch import Tensor, nn

import torchpure as tp

PI = torch.pi


def main(steps: int = 2000) -> float:
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
    error = (tp.vmap(u, in_dims=(None, 0))(params, grid) - exact).norm() / exact.norm()
    print(f"residual {values[0]:.3g} to {values[-1]:.3g}; relative error {error:.2e}")
    return float(error)


if __name__ == "__main__":
    main()

# %% [markdown]
# # Burgers' equation from its residual
#
# When to use this: you solve a differential equation with a network that knows the equation, and no data.
#
# The equation is uₜ + u uₓ = ν uₓₓ on [−1, 1] × [0, 1] with ν = 0.05/π. It begins as −sin(πx), and forms a steep front at x = 0.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import torchpure as tp

# %% tags=["parameters"]
adam_steps, lbfgs_steps, points = 1000, 500, 1500

# %% [markdown]
# Start and border hold by construction: u = −sin(πx) + t (1 − x²) net(x, t). `tp.partials` gives u and its derivatives at **one**
# point, from one pass; `tp.vmap` takes all points.

# %%
viscosity = 0.05 / math.pi
hidden = [layer for _ in range(3) for layer in (nn.Tanh(), nn.Linear(24, 24))]
net = tp.functional(nn.Sequential(nn.Linear(2, 24), *hidden, nn.Tanh(), nn.Linear(24, 1)).double())


def u(params, x, t):
    return -torch.sin(math.pi * x) + t * (1 - x**2) * net(params, torch.stack([x, t]))[0]


def residual(params, x, t):
    value, u_t, u_x, u_xx = tp.partials(u, ("", "t", "x", "xx"))(params, x, t)
    return u_t + value * u_x - viscosity * u_xx


def loss(params, x, t):
    return (tp.vmap(residual, in_dims=(None, 0, 0))(params, x, t) ** 2).mean()


# %% [markdown]
# A quarter of the points lies close to the front. Adam runs as one compiled loop.

# %%
x, t = tp.random.uniform(tp.random.key(1), (2, points), dtype=torch.float64)
x = 2 * x - 1
x[: points // 4] *= 0.1
optimizer = tp.optim.adam(tp.optim.cosine_decay_schedule(3e-3, adam_steps))


@tp.jit
def run_adam(params):
    def step(carry, _):
        params, opt_state = carry
        return optimizer.step(tp.grad(loss)(params, x, t), opt_state, params), None

    return tp.scan(step, (params, optimizer.init(params)), length=adam_steps)[0][0]


params, _ = net.init(tp.random.key(0))
params = run_adam(params)
print(f"residual after Adam    {float(loss(params, x, t)):.1e}")

# %% [markdown]
# L-BFGS of torch takes a vector of parameters and a function that gives value and gradient: that one is compiled.

# %%
flat, unravel = tp.ravel_pytree(params)
flat = flat.clone().requires_grad_()
value_and_grad = tp.jit(tp.value_and_grad(lambda flat: loss(unravel(flat), x, t)))
lbfgs = torch.optim.LBFGS([flat], max_iter=lbfgs_steps, history_size=50, line_search_fn="strong_wolfe")


def closure():
    value, flat.grad = value_and_grad(flat.detach())
    return float(value)


lbfgs.step(closure)
params = unravel(flat.detach())
print(f"residual after L-BFGS  {float(loss(params, x, t)):.1e}")

# %% [markdown]
# The exact solution is an integral (Cole and Hopf). The quadrature of Gauss and Hermite computes it.


# %%
def exact(x, t):
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite.hermgauss(200))
    at = math.pi * (x[..., None] - 2 * (viscosity * t[..., None]).sqrt() * nodes)
    power = -at.cos() / (2 * math.pi * viscosity)
    kernel = weights * torch.exp(power - power.amax(-1, keepdim=True))
    return -(at.sin() * kernel).sum(-1) / kernel.sum(-1)


# %% alt="Solution at three times: the network's curves lie on the exact ones, and a steep front forms at x = 0"
grid = torch.linspace(-1, 1, 401).double()
times = torch.tensor([0.25, 0.5, 0.9]).double()
found = tp.vmap(tp.vmap(u, in_dims=(None, 0, None)), in_dims=(None, None, 0))(params, grid, times)
wanted = exact(grid.expand(3, -1), times[:, None].expand(3, 401))
figure, axes = plt.subplots(figsize=(6.4, 3.6))
for index, time in enumerate(times.tolist()):
    axes.plot(grid, wanted[index], color="0.7", linewidth=4, label="exact" if index == 0 else None)
    axes.plot(grid, found[index], linewidth=1.2, label=f"network, t = {time:.2f}")
axes.set(xlabel="x", ylabel="u")
axes.legend()
figure.tight_layout()

# %%
error = float((found - wanted).norm() / wanted.norm())
print(f"relative error {error:.1e}")

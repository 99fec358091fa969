# %% [markdown]
# # A neural ODE
#
# When to use this: your data are a path through time, and you want the rule behind it: dz/dt = f(z) with a network f (Chen et al. 2018,
# arXiv:1806.07366).
#
# The solver is a loop of ordinary code: the Runge–Kutta method of order 4 in `tp.scan`. `tp.grad` goes through it.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import torchpure as tp

# %% tags=["parameters"]
steps, length = 3000, 60

# %%
net = tp.functional(nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2)))
dt = 0.1


def solve(field, z, length):
    """Return `length` points of the path that begins at z."""

    def step(z, _):
        k1 = field(z)
        k2 = field(z + dt / 2 * k1)
        k3 = field(z + dt / 2 * k2)
        k4 = field(z + dt * k3)
        return z + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), z

    return tp.scan(step, z, length=length)[1]


def spiral(z):
    """The rule that the network is to find."""
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    return matrix @ z**3


# %% [markdown]
# Six paths are the data, with a little noise. Each path is a row of a batch: `tp.vmap` solves them side by side.

# %%
starts = 1.0 + 0.6 * tp.random.uniform(tp.random.key(0), (6, 2))
paths = tp.vmap(lambda z: solve(spiral, z, length))(starts)
data = paths + 0.02 * tp.random.normal(tp.random.key(1), paths.shape)
pieces = data.unfold(1, 11, 5).transpose(2, 3).reshape(-1, 11, 2)  # short pieces: each begins at a point of the data


def loss(params, pieces):
    found = tp.vmap(lambda z: solve(lambda z: net(params, z), z, 11))(pieces[:, 0])
    return (found - pieces).abs().mean()


params, _ = net.init(tp.random.key(2))
optimizer = tp.optim.adam(tp.optim.cosine_decay_schedule(1e-2, steps))
fitted = tp.fit(loss, (pieces,), params=params, optimizer=optimizer, steps=steps)
print(f"mean distance {float(fitted.history[0]):.3f} at the start, {float(fitted.history[-1]):.3f} at the end")

# %% [markdown]
# A start that is not among the data. The network's rule gives a path of its own, over a longer time than any piece.

# %% alt="A spiral from a new start: the path of the network follows the true one"
new = torch.tensor([1.5, 1.1])
wanted = solve(spiral, new, 2 * length)
found = solve(lambda z: net(fitted.params, z), new, 2 * length)
figure, axes = plt.subplots(figsize=(4.6, 4.2))
axes.plot(*data[0].T, ".", color="0.6", markersize=3, label="one path of the data")
axes.plot(*wanted.T, color="0.7", linewidth=4, label="true")
axes.plot(*found.T, linewidth=1.2, label="network")
axes.set(xlabel="z₁", ylabel="z₂")
axes.legend()
figure.tight_layout()

# %%
distance = float((found - wanted).norm(dim=1).mean() / wanted.norm(dim=1).mean())
print(f"mean distance from the true path: {100 * distance:.1f} % of its radius")

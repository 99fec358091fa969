# %% [markdown]
# # MAML: a start that learns from five points
#
# When to use this: you have many small tasks that are alike, and want parameters from which one step of gradient descent solves a
# new one (Finn et al. 2017, arXiv:1703.03400).
#
# A task is a sine with its own amplitude and phase. The outer loss is the loss **after** a step on five points, so its gradient holds
# second derivatives. `tp.grad` inside of `tp.grad` is all that this takes.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import nn

import torchpure as tp

# %% tags=["parameters"]
steps, tasks = 6000, 25

# %%
net = tp.functional(nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)))


def draw_task(key, points=10):
    """Return 2 × 5 points of one sine: five to learn from, five to be judged by."""
    shape, place = tp.random.split(key)
    a, b = tp.random.uniform(shape, (2,))
    amplitude, phase = 0.1 + 4.9 * a, math.pi * b
    x = 10 * tp.random.uniform(place, (points, 1)) - 5
    return x, amplitude * torch.sin(x + phase)


def loss(params, x, y):
    return nn.functional.mse_loss(net(params, x), y)


def adapt(params, x, y, rate=0.01):
    grads = tp.grad(loss)(params, x, y)
    return tp.tree.map(lambda p, g: p - rate * g, params, grads)


def loss_after_a_step(params, key):
    x, y = draw_task(key)
    return loss(adapt(params, x[:5], y[:5]), x[5:], y[5:])


# %% [markdown]
# Each outer step draws 25 tasks. `tp.vmap` adapts to all of them side by side, and the whole training is one compiled loop.

# %%
optimizer = tp.optim.adam(1e-3)


def meta_loss(params, key):
    return tp.vmap(loss_after_a_step, in_dims=(None, 0))(params, tp.random.split(key, tasks)).mean()


@tp.jit
def train(params, keys):
    def step(carry, key):
        params, opt_state = carry
        value, grads = tp.value_and_grad(meta_loss)(params, key)
        return optimizer.step(grads, opt_state, params), value

    (params, _), losses = tp.scan(step, (params, optimizer.init(params)), keys)
    return params, losses


start, _ = net.init(tp.random.key(0))
params, losses = train(start, tp.random.split(tp.random.key(1), steps))
tenth = max(1, steps // 10)
print(f"loss after one step: {losses[:tenth].mean():.2f} in the first tenth, {losses[-tenth:].mean():.2f} in the last")

# %% [markdown]
# A new task, which the training has not seen. One step from the learned start moves the whole wave to the new phase, also where
# there is no point. Eleven steps from an ordinary start leave a larger error.

# %% alt="A new sine, five points of it, and three curves: before a step a wave of another phase, after one and ten steps near the sine"
x, y = draw_task(tp.random.key(7), points=5)
grid = torch.linspace(-5, 5, 200)[:, None]
a, b = tp.random.uniform(tp.random.split(tp.random.key(7))[0], (2,))
truth = (0.1 + 4.9 * a) * torch.sin(grid + math.pi * b)
figure, axes = plt.subplots(figsize=(6.4, 3.6))
axes.plot(grid, truth, color="0.7", linewidth=4, label="the task")
adapted, ordinary, errors = params, start, {}
for count in range(11):
    if count in (0, 1, 10):
        axes.plot(grid, net(adapted, grid), label=f"after {count} steps")
        errors[count] = float((net(adapted, grid) - truth).pow(2).mean())
    adapted, ordinary = adapt(adapted, x, y), adapt(ordinary, x, y)
axes.plot(x, y, "k^", label="five points")
axes.set(xlabel="x", ylabel="y")
axes.legend(fontsize=8)
figure.tight_layout()

# %%
print(", ".join(f"after {count}: {error:.2f}" for count, error in errors.items()))
print(f"ordinary start, after 11: {float((net(ordinary, grid) - truth).pow(2).mean()):.2f}")

# %% [markdown]
# # Which rows of the data does a network rely on?
#
# When to use this: you suspect wrong labels, or want to explain a prediction by the rows that caused it (Koh and Liang 2017,
# arXiv:1703.04730).
#
# Without row i, the loss on other data changes by about gᵀ H⁻¹ gᵢ / n: gᵢ is the gradient of this row, g the gradient of the other
# data, H the curvature, and n the number of rows. Gradients of single rows are `tp.vmap` of `tp.grad`.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import torchpure as tp

# %% tags=["parameters"]
rows, wrong, steps = 300, 30, 1500


# %% [markdown]
# Two half moons. Thirty of the 300 labels are wrong.


# %%
def moons(key, rows):
    angles, noise = tp.random.split(key)
    angle = torch.pi * tp.random.uniform(angles, (rows,))
    label = torch.arange(rows) % 2
    sign = 1 - 2 * label
    points = torch.stack([sign * angle.cos() + label, sign * angle.sin() + 0.5 * label], 1)
    return points + 0.15 * tp.random.normal(noise, (rows, 2)), label.float()


x, clean = moons(tp.random.key(0), rows)
flipped = torch.zeros(rows, dtype=torch.bool)
flipped[tp.random.permutation(tp.random.key(1), rows)[:wrong]] = True
y = torch.where(flipped, 1 - clean, clean)
x_check, y_check = moons(tp.random.key(2), 100)

# %% [markdown]
# The network is small, so its curvature is a matrix. A penalty on the parameters keeps it from learning the wrong labels by heart.

# %%
net = tp.functional(nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 1)))
start, unravel = tp.ravel_pytree(net.init(tp.random.key(3))[0])
penalty = 1e-3


def loss_of_row(flat, x, y):
    return nn.functional.binary_cross_entropy_with_logits(net(unravel(flat), x)[0], y)


def loss(flat, x, y):
    return tp.vmap(loss_of_row, in_dims=(None, 0, 0))(flat, x, y).mean() + penalty / 2 * flat.pow(2).sum()


fitted = tp.fit(loss, (x, y), params=start, optimizer=tp.optim.adam(1e-2), steps=steps)
flat = fitted.params
print(f"loss {float(fitted.history[-1]):.3f}, of the check {float(loss(flat, x_check, y_check)):.3f}")

# %% [markdown]
# The curvature is a Gauss–Newton matrix: JᵀJ, weighted by p (1 − p), and the penalty. It has no negative eigenvalue.

# %%
gradients = tp.vmap(tp.grad(loss_of_row), in_dims=(None, 0, 0))(flat, x, y)  # (rows, parameters)
jacobian = tp.jacrev(lambda flat: net(unravel(flat), x)[:, 0])(flat)
probability = torch.sigmoid(net(unravel(flat), x)[:, 0])
weights = probability * (1 - probability) / rows
curvature = jacobian.T @ (weights[:, None] * jacobian) + penalty * torch.eye(len(flat))
gradient = tp.vmap(tp.grad(loss_of_row), in_dims=(None, 0, 0))(flat, x_check, y_check).mean(0)
change = gradients @ torch.linalg.solve(curvature, gradient) / rows  # of the check's loss, without this row
harmful = -change
print("parameters:", len(flat), "  gradients:", tuple(gradients.shape))

# %% [markdown]
# Rows that make the check's loss **larger** are the suspects. Most wrong labels are among them.

# %% alt="Two half moons; the rows that harm the check's loss are red, and most of them carry a circle: a wrong label"
figure, axes = plt.subplots(figsize=(6.4, 3.6))
dots = axes.scatter(*x.T, c=harmful, cmap="coolwarm", s=14, vmin=-harmful.abs().max(), vmax=harmful.abs().max())
axes.scatter(*x[flipped].T, facecolors="none", edgecolors="k", s=60, label="wrong label")
axes.legend()
figure.colorbar(dots, label="harm to the check's loss")
figure.tight_layout()

# %%
suspects = harmful.argsort(descending=True)[:wrong]
found = int(flipped[suspects].sum())
print(f"{found} of {wrong} wrong labels are among the {wrong} most harmful rows")

# %% [markdown]
# Does it hold? Train again without the suspects, and look at the check.

# %%
keep = torch.ones(rows, dtype=torch.bool)
keep[suspects] = False
again = tp.fit(loss, (x[keep], y[keep]), params=start, optimizer=tp.optim.adam(1e-2), steps=steps)
before, after = float(loss(flat, x_check, y_check)), float(loss(again.params, x_check, y_check))
print(f"loss of the check: {before:.3f} before, {after:.3f} without the suspects")

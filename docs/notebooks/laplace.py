# %% [markdown]
# # Bands of uncertainty from a Laplace approximation
#
# When to use this: you have a trained network, and want to know where it is unsure, without training it again (MacKay 1992; Immer et
# al. 2021, arXiv:2008.08400).
#
# The posterior is taken for a normal distribution around the trained parameters. Its covariance is the inverse of the curvature: JᵀJ / σ²,
# and the prior. J is the Jacobian of the outputs in the parameters: `tp.jacrev`.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import torchpure as tp

# %% tags=["parameters"]
steps = 3000

# %% [markdown]
# A sine with noise, and a gap in the middle.

# %%
noise = 0.15
places = 2 * tp.random.uniform(tp.random.key(0), (60,), dtype=torch.float64)
x = torch.where(places < 1, -3 + 2 * places, 3 - 2 * (places - 1))[:, None]
y = torch.sin(1.5 * x) + noise * tp.random.normal(tp.random.key(1), (60, 1), dtype=torch.float64)
net = tp.functional(nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1)).double())
start, unravel = tp.ravel_pytree(net.init(tp.random.key(2))[0])


def outputs(flat, x):
    return net(unravel(flat), x)[:, 0]


# %% [markdown]
# For each precision of the prior: train, take the curvature, and compute the logarithm of the evidence. The largest evidence chooses the
# prior, without a row held back. `tp.vmap` takes all eight priors at once.


# %%
def train(precision):
    def loss(flat):
        return ((outputs(flat, x) - y[:, 0]) ** 2).sum() / (2 * noise**2) + precision / 2 * flat.pow(2).sum()

    optimizer = tp.optim.adam(tp.optim.cosine_decay_schedule(0.02, steps))

    def step(carry, _):
        flat, opt_state = carry
        return optimizer.step(tp.grad(loss)(flat), opt_state, flat), None

    flat = tp.scan(step, (start, optimizer.init(start)), length=steps)[0][0]
    return flat, loss(flat)


def evidence(flat, value, precision):
    jacobian = tp.jacrev(outputs)(flat, x)
    curvature = jacobian.T @ jacobian / noise**2 + precision * torch.eye(len(flat)).double()
    determinant = torch.linalg.slogdet(curvature).logabsdet
    return -value + len(flat) / 2 * torch.log(precision) - determinant / 2, curvature


precisions = torch.logspace(-2, 1.5, 8).double()
candidates, values = tp.jit(tp.vmap(train))(precisions)
scores, curvatures = tp.vmap(evidence)(candidates, values, precisions)
best = int(scores.argmax())
flat, covariance = candidates[best], torch.linalg.inv(curvatures[best])
print(f"prior precision {float(precisions[best]):.2f}, of {[round(p, 2) for p in precisions.tolist()]}")

# %% [markdown]
# The variance of a prediction is j Σ jᵀ, where j is the row of the Jacobian at this place; new data add the noise.

# %% alt="A sine with noise and a gap: the band of two deviations is narrow at the data, and wide in the gap and outside"
grid = torch.linspace(-4.5, 4.5, 181).double()[:, None]
rows = tp.jacrev(outputs)(flat, grid)
mean, variance = outputs(flat, grid), ((rows @ covariance) * rows).sum(1)
figure, axes = plt.subplots(figsize=(6.4, 3.6))
for width, shade in ((variance + noise**2, 0.15), (variance, 0.3)):
    band = 2 * width.sqrt()
    axes.fill_between(grid[:, 0], mean - band, mean + band, color="tab:blue", alpha=shade, linewidth=0)
axes.plot(grid, mean, label="mean")
axes.plot(grid, torch.sin(1.5 * grid), "--", color="0.5", label="without noise")
axes.plot(x, y, "k.", markersize=4, label="data")
axes.set(xlabel="x", ylabel="y", ylim=(-4, 4))
axes.legend()
figure.tight_layout()

# %%
deviation = variance.sqrt()
at_data, in_gap = deviation[(grid[:, 0].abs() - 2).abs() < 0.5].mean(), deviation[grid[:, 0].abs() < 0.5].mean()
inside = ((outputs(flat, grid) - torch.sin(1.5 * grid[:, 0])).abs() < 2 * deviation)[grid[:, 0].abs() <= 3]
print(f"deviation {float(at_data):.3f} at the data, {float(in_gap):.3f} in the gap")
print(f"{100 * inside.double().mean():.0f} % of the curve between -3 and 3 lie inside of two deviations")

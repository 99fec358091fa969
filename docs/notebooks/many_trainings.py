# %% [markdown]
# # 1,024 trainings at once
#
# When to use this: you want to know how the result of a training depends on the learning rate and on the start, and one training
# tells you neither.
#
# A training is a function of a key and of a learning rate. `tp.vmap` maps it over 1,024 of them, and `tp.jit` compiles all of that
# into one program.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import torchpure as tp

# %% tags=["parameters"]
members, steps = 1024, 500

# %% [markdown]
# The module is an ordinary one. `train` starts it from its own key, and returns the loss of every step.

# %%
net = tp.functional(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)))
x = torch.linspace(0, 6, 40)[:, None]
y = 2 * torch.sin(x)


def train(key, learning_rate):
    params, _ = net.init(key)
    optimizer = tp.optim.adam(learning_rate)

    def loss(params):
        return nn.functional.mse_loss(net(params, x), y)

    def step(carry, _):
        params, opt_state = carry
        value, grads = tp.value_and_grad(loss)(params)
        return optimizer.step(grads, opt_state, params), value

    return tp.scan(step, (params, optimizer.init(params)), length=steps)[1]


# %% [markdown]
# Each member has its own key and its own rate, from 10⁻⁴ to 1.

# %%
keys = tp.random.split(tp.random.key(0), members)
learning_rates = torch.logspace(-4, 0, members)
losses = tp.jit(tp.vmap(train))(keys, learning_rates)
print("members and steps:", tuple(losses.shape))

# %% [markdown]
# One point is one training. Small rates have not arrived after 500 steps; large ones jump around. The width of the cloud is what
# the start contributes.

# %% alt="Final loss of 1,024 trainings against their learning rate: it falls to a valley near 0.03 and rises again"
final = losses[:, -1]
figure, axes = plt.subplots(figsize=(6.4, 3.6))
axes.loglog(learning_rates, final, ".", markersize=3)
axes.set(xlabel="learning rate", ylabel=f"loss after {steps} steps")
figure.tight_layout()

# %%
quarters = final.reshape(8, -1).median(1).values
best = int(quarters.argmin())
low, high = learning_rates.reshape(8, -1)[best, [0, -1]].tolist()
print(f"the best eighth: rates from {low:.3f} to {high:.3f}, median loss {quarters[best]:.1e}")

"""Reptile (Nichol, Achiam, Schulman 2018, arXiv:1803.02999): the start moves towards what short trainings reach.

Nothing is differentiated twice: the mean of (start − end of a training) is the gradient of the outer optimizer.
"""

import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp

TASKS, POINTS, INNER_STEPS = 8, 20, 16


def draw_tasks(key):
    """Draw points of sines, each of shape (tasks, points, 1)."""
    keys = tp.random.split(key, 3)
    amplitude = tp.random.uniform(keys[0], (TASKS, 1, 1), low=0.5, high=3.0)
    phase = tp.random.uniform(keys[1], (TASKS, 1, 1), high=torch.pi)
    x = tp.random.uniform(keys[2], (TASKS, POINTS, 1), low=-3.0, high=3.0)
    return x, amplitude * torch.sin(x + phase)


def main(steps=300):
    """Train the start; print and return the loss of new tasks after a short training, before and after."""
    torch.manual_seed(0)
    net = tp.functional(nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)))
    inner, outer = tp.optim.sgd(0.05), tp.optim.sgd(0.3)

    def adapted(start, x, y):
        return tp.train.unroll(lambda params: F.mse_loss(net(params, x), y), start, inner, INNER_STEPS)

    def step(carry, key):
        start, state = carry
        ends = tp.vmap(lambda x, y: adapted(start, x, y).params)(*draw_tasks(key))
        direction = tp.tree.map(lambda a, b: a - b.mean(0), start, ends)
        return outer.step(direction, state, start), None

    def after_training(start):
        return tp.vmap(lambda x, y: adapted(start, x, y).losses[-1])(*draw_tasks(tp.random.key(1))).mean()

    before, keys = after_training(net.params), tp.random.split(tp.random.key(0), steps)
    (start, _), _ = tp.jit(lambda carry, keys: tp.scan(step, carry, keys))((net.params, outer.init(net.params)), keys)
    after = after_training(start)
    print(f"loss after {INNER_STEPS} steps: {before:.3f} before, {after:.3f} after Reptile")
    return before.item(), after.item()


if __name__ == "__main__":
    main()

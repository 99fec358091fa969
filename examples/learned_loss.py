"""A learned loss (Bechtle et al. 2021, arXiv:1906.05374): a network rates (prediction, target) in the inner loop.

The inner targets have outliers. The outer loss compares with clean values. So the loss that is learned is robust.
"""

import torch
from torch import nn

import torchpure as tp

POINTS, STEPS, TASKS = 40, 30, 8


def draw(key):
    """Draw slopes, points, targets with outliers, and clean targets."""
    keys = tp.random.split(key, 4)
    slope = tp.random.normal(keys[0], (TASKS, 2))
    x = tp.random.normal(keys[1], (TASKS, POINTS, 2))
    clean = (x @ slope[..., None]).squeeze(-1)
    outliers = tp.random.bernoulli(keys[2], 0.2, (TASKS, POINTS)) * (
        5 + 5 * tp.random.uniform(keys[3], (TASKS, POINTS))
    )
    return x, clean + outliers, clean


def main(meta_steps=150):
    """Train the loss; print and return the clean error of new tasks with the square and with the learned loss."""
    rate_loss = tp.functional(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1), nn.Softplus()))
    meta = rate_loss.init(tp.random.key(1))[0]
    inner, outer = tp.optim.sgd(0.1, momentum=0.5), tp.optim.adam(1e-2)

    def learned(meta):
        return lambda error: rate_loss(meta, error[:, None]).mean()

    def clean_error(loss, x, y, clean):
        fit = tp.train.unroll(lambda w: loss(x @ w - y), torch.zeros(2), inner, STEPS).params
        return ((x @ fit - clean) ** 2).mean()

    def mean_error(loss, key):
        return tp.vmap(lambda *task: clean_error(loss, *task))(*draw(key)).mean()

    def step(carry, key):
        meta, state = carry
        value, grads = tp.value_and_grad(lambda meta: mean_error(learned(meta), key))(meta)
        return outer.step(grads, state, meta), value

    keys, test = tp.random.split(tp.random.key(0), meta_steps), tp.random.key(99)
    (meta, _), _ = tp.jit(lambda carry, keys: tp.scan(step, carry, keys))((meta, outer.init(meta)), keys)
    square, robust = (mean_error(loss, test).item() for loss in (lambda e: (e**2).mean(), learned(meta)))
    print(f"error against clean values: {square:.3f} with the square, {robust:.3f} with the learned loss")
    return square, robust


if __name__ == "__main__":
    main()

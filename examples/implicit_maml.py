"""iMAML (Rajeswaran et al. 2019, arXiv:1909.04630): the meta-gradient of a regularised inner problem, by its optimum.

The inner loss has the term λ/2 |w − start|². Its minimum has a derivative that does not depend on how it was found. So
no step of the inner solver is stored.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp

TASKS, SHOTS, STRENGTH, INNER_STEPS = 8, 10, 0.2, 32


def draw_tasks(key):
    """Draw support and query points of sines, each of shape (tasks, shots, 1)."""
    keys = tp.random.split(key, 4)
    amplitude = tp.random.uniform(keys[0], (TASKS, 1, 1), low=0.5, high=3.0)
    phase = tp.random.uniform(keys[1], (TASKS, 1, 1), high=torch.pi)
    points = [tp.random.uniform(k, (TASKS, SHOTS, 1), low=-3.0, high=3.0) for k in keys[2:]]
    return tuple(part for x in points for part in (x, amplitude * torch.sin(x + phase)))


def main(steps=300):
    """Train the start; print and return the query loss of new tasks before and after."""
    torch.manual_seed(0)
    net = tp.functional(nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)))
    outer = tp.optim.adam(3e-3)

    def inner_loss(params, start, x, y):
        distance = tp.tree.sub(params, start)
        return F.mse_loss(net(params, x), y) + STRENGTH / 2 * tp.tree.dot(distance, distance)

    @tp.custom_root(tp.grad(inner_loss), solve=partial(tp.implicit.solve_cg, maxiter=10))
    def adapt(_, start, x, y):
        loss = lambda params: inner_loss(params, start, x, y)  # noqa: E731
        return tp.train.unroll(loss, start, tp.optim.sgd(0.05), INNER_STEPS).params

    def query_loss(start, x, y, x_query, y_query):
        return F.mse_loss(net(adapt(None, start, x, y), x_query), y_query)

    def meta_loss(start, key):
        return tp.vmap(query_loss, in_dims=(None, 0, 0, 0, 0))(start, *draw_tasks(key)).mean()

    def step(carry, key):
        start, state = carry
        value, grads = tp.value_and_grad(meta_loss)(start, key)
        return outer.step(grads, state, start), value

    keys, test = tp.random.split(tp.random.key(0), steps), tp.random.key(1)
    before = meta_loss(net.params, test)
    run = tp.jit(lambda carry, keys: tp.scan(step, carry, keys))
    (start, _), _ = run((net.params, outer.init(net.params)), keys)
    after = meta_loss(start, test)
    print(f"query loss: {before:.3f} before, {after:.3f} after meta-training")
    return before.item(), after.item()


if __name__ == "__main__":
    main()

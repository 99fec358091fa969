"""Meta-learning on sines: MAML and first-order MAML (Finn et al. 2017, arXiv:1703.03400), ANIL (Raghu et al. 2020,
arXiv:1909.09157), and learned rates per parameter (Meta-SGD: Li et al. 2017, arXiv:1707.09835).

All four differ in a line: what the inner loop trains, with which rates, and whether its gradients are constants.
"""

import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp

TASKS, SHOTS, INNER_STEPS = 16, 10, 5


def draw_tasks(key):
    """Draw support and query points of sines, each of shape (tasks, shots, 1)."""
    keys = tp.random.split(key, 4)
    amplitude = tp.random.uniform(keys[0], (TASKS, 1, 1), low=0.5, high=3.0)
    phase = tp.random.uniform(keys[1], (TASKS, 1, 1), high=torch.pi)
    points = [tp.random.uniform(k, (TASKS, SHOTS, 1), low=-3.0, high=3.0) for k in keys[2:]]
    return tuple(part for x in points for part in (x, amplitude * torch.sin(x + phase)))


def inner_optimizer(method, meta):
    """Return the optimizer of the inner loop."""
    if method == "learned rates":
        learned = lambda grads, _: tp.tree.map(lambda g, log_rate: -log_rate.exp() * g, grads, meta["log_rates"])  # noqa: E731
        return tp.optim.stateless(learned)
    sgd = tp.optim.sgd(0.05)
    if method == "first order":  # gradients are constants: no second derivatives
        return tp.optim.chain(tp.optim.stateless(lambda grads, _: tp.stop_gradient(grads)), sgd)
    if method == "ANIL":  # the inner loop trains the last layer alone
        return tp.optim.chain(sgd, tp.optim.freeze(["0.*", "2.*"]))
    return sgd


def main(method="MAML", steps=300):
    """Train the start of the inner loop; print and return the query loss of new tasks before and after."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    net = tp.functional(module)
    meta = {"start": net.params}
    if method == "learned rates":
        meta["log_rates"] = tp.tree.map(lambda leaf: torch.full_like(leaf, -3.0), net.params)

    def query_loss(meta, x, y, x_query, y_query):
        loss = lambda params: F.mse_loss(net(params, x), y)  # noqa: E731
        adapted = tp.train.unroll(loss, meta["start"], inner_optimizer(method, meta), INNER_STEPS).params
        return F.mse_loss(net(adapted, x_query), y_query)

    def meta_loss(meta, key):
        return tp.vmap(query_loss, in_dims=(None, 0, 0, 0, 0))(meta, *draw_tasks(key)).mean()

    outer = tp.optim.adam(3e-3)

    def step(carry, key):
        meta, state = carry
        value, grads = tp.value_and_grad(meta_loss)(meta, key)
        return outer.step(grads, state, meta), value

    test = tp.random.key(1)
    before = meta_loss(meta, test)
    keys = tp.random.split(tp.random.key(0), steps)
    (meta, _), _ = tp.jit(lambda carry, keys: tp.scan(step, carry, keys))((meta, outer.init(meta)), keys)
    after = meta_loss(meta, test)
    print(f"{method}: query loss after {INNER_STEPS} steps {before:.3f} before, {after:.3f} after meta-training")
    return before.item(), after.item()


if __name__ == "__main__":
    for name in ("MAML", "first order", "ANIL", "learned rates"):
        main(name)

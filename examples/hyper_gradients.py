"""Hyper-gradients by the implicit function theorem (Lorraine, Vicol, Duvenaud 2020, arXiv:1911.02590).

The strength of ridge regression, and the weight decay of a small network, are trained on a validation loss.
"""

import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp


def ridge(steps=40):
    """Return the validation losses at the start, at the learned strength, and the best of a fine grid."""
    keys = tp.random.split(tp.random.key(0), 3)
    x = tp.random.normal(keys[0], (60, 20), dtype=torch.float64)
    y = x[:, :3].sum(1) + 2.0 * tp.random.normal(keys[1], (60,), dtype=torch.float64)
    x, y, x_val, y_val = x[:30], y[:30], x[30:], y[30:]

    def loss(w, log_strength):
        return ((x @ w - y) ** 2).mean() / 2 + log_strength.exp() * (w @ w) / 2

    @tp.custom_root(tp.grad(loss), solve=tp.implicit.solve_cg)
    def fit(_, log_strength):
        normal = lambda w: x.T @ (x @ w) / len(x) + log_strength.exp() * w  # noqa: E731
        return tp.implicit.solve_cg(normal, x.T @ y / len(x))

    validation = lambda log_strength: ((x_val @ fit(None, log_strength) - y_val) ** 2).mean()  # noqa: E731
    log_strength, optimizer = torch.tensor(-4.0, dtype=torch.float64), tp.optim.adam(0.3)
    before, state = validation(log_strength).item(), optimizer.init(log_strength)
    for _ in range(steps):
        log_strength, state = optimizer.step(tp.grad(validation)(log_strength), state, log_strength)
    best = tp.vmap(validation)(torch.linspace(-6, 4, 200, dtype=torch.float64)).min().item()
    print(f"ridge: validation loss {before:.4f} before, {validation(log_strength):.4f} after, {best:.4f} on a grid")
    return before, validation(log_strength).item(), best


def weight_decay(steps=12):
    """Return the hyper-gradient at the start by the theorem and by differences, and the losses before and after."""
    net = tp.functional(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double())
    start, _ = net.init(tp.random.key(1))
    x = torch.linspace(-2, 2, 16, dtype=torch.float64)[:, None]
    y = torch.sin(2 * x) + 0.4 * tp.random.normal(tp.random.key(2), (16, 1), dtype=torch.float64)
    x_val = torch.linspace(-1.9, 1.9, 50, dtype=torch.float64)[:, None]

    def loss(params, log_decay):
        return F.mse_loss(net(params, x), y) + log_decay.exp() * tp.tree.dot(params, params)

    @tp.custom_root(tp.grad(loss), solve=tp.implicit.solve_gmres)
    def fit(_, log_decay):
        return tp.train.unroll(
            lambda params: loss(params, log_decay), start, tp.optim.sgd(0.2, momentum=0.9), 1500
        ).params

    validation = tp.jit(lambda log_decay: F.mse_loss(net(fit(None, log_decay), x_val), torch.sin(2 * x_val)))
    gradient = tp.jit(tp.grad(lambda log_decay: validation(log_decay)))
    log_decay, optimizer, step = torch.tensor(-3.0, dtype=torch.float64), tp.optim.adam(0.4), 1e-4
    found = gradient(log_decay).item()
    difference = (validation(log_decay + step) - validation(log_decay - step)).item() / (2 * step)
    before, state = validation(log_decay).item(), optimizer.init(log_decay)
    for _ in range(steps):
        log_decay, state = optimizer.step(gradient(log_decay), state, log_decay)
    print(f"weight decay: validation loss {before:.4f} before, {validation(log_decay):.4f} after")
    return found, difference, before, validation(log_decay).item()


def main():
    """Run both."""
    return ridge(), weight_decay()


if __name__ == "__main__":
    main()

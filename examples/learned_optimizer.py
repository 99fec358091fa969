"""A learned optimizer (Andrychowicz et al. 2016, arXiv:1606.04474): an LSTM over coordinates, trained on quadratics.

Each coordinate of the parameters has its own state of the same small LSTM. It reads the gradient and writes the update.
The sum of the losses of 20 steps is the meta-loss; meta-gradients keep every fourth position (`remat`).
"""

import torch
from torch import nn

import torchpure as tp

DIM, HIDDEN, STEPS, PROBLEMS = 8, 16, 20, 16


def learned(net, weights):
    """Return the optimizer: a pair of functions, as every optimizer of the library."""

    def init(params):
        return torch.zeros(2, params.numel(), HIDDEN)

    def update(grads, state, params):
        size = grads.abs().clamp_min(1e-6)
        features = torch.stack([size.log() / 10, grads.sign()], -1)
        hidden, cell = net.cell(weights["cell"], features, tuple(state))
        return 0.1 * net.out(weights["out"], hidden).squeeze(-1), torch.stack([hidden, cell])

    return tp.optim.Optimizer(init, update)


class Parts:
    """The two modules of the optimizer, as functions of their parameters."""

    cell = tp.functional(nn.LSTMCell(2, HIDDEN))
    out = tp.functional(nn.Linear(HIDDEN, 1))


def run(optimizer, key):
    """Return the losses of a training on a random least squares problem."""
    k_matrix, k_target = tp.random.split(key)
    matrix = tp.random.normal(k_matrix, (DIM, DIM)) / DIM**0.5
    target = tp.random.normal(k_target, (DIM,))
    loss = lambda x: ((matrix @ x - target) ** 2).mean()  # noqa: E731
    return tp.train.unroll(loss, torch.zeros(DIM), optimizer, STEPS, remat=4).losses


def mean_losses(optimizer, key):
    """Return the losses of each step, averaged over problems."""
    return tp.vmap(lambda key: run(optimizer, key))(tp.random.split(key, PROBLEMS)).mean(0)


def main(meta_steps=200):
    """Train the optimizer; print and return the last loss on new problems of SGD, of Adam and of the learned one."""
    weights = {
        "cell": Parts.cell.init(tp.random.key(1))[0],
        "out": Parts.out.init(tp.random.key(2))[0],
    }
    outer, test = tp.optim.adam(1e-2), tp.random.key(99)

    def step(carry, key):
        weights, state = carry
        total = lambda weights: mean_losses(learned(Parts, weights), key).sum()  # noqa: E731
        value, grads = tp.value_and_grad(total)(weights)
        return outer.step(grads, state, weights), value

    keys = tp.random.split(tp.random.key(0), meta_steps)
    (weights, _), _ = tp.jit(lambda carry, keys: tp.scan(step, carry, keys))((weights, outer.init(weights)), keys)
    found = {
        name: mean_losses(optimizer, test)[-1].item()
        for name, optimizer in {
            "sgd": tp.optim.sgd(1.0),
            "adam": tp.optim.adam(0.2),
            "learned": learned(Parts, weights),
        }.items()
    }
    print(f"mean loss of new problems after {STEPS} steps: {found}")
    return found


if __name__ == "__main__":
    main()

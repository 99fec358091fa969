"""Dataset distillation (Wang et al. 2018, arXiv:1811.10959): a few synthetic points that train as well as many.

Two spirals of 200 points become 12 points. The points themselves and the inner rate are what the outer loop learns.
"""

import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp

POINTS, DISTILLED, STEPS = 100, 12, 15


def spirals():
    """Return points of two arms of almost one turn, and their classes."""
    t = torch.linspace(0.3, 1.0, POINTS) * 2.5 * torch.pi
    arm = torch.stack([t.cos(), t.sin()], 1) * t[:, None] / 5
    return torch.cat([arm, -arm]), torch.arange(2).repeat_interleave(POINTS)


def main(meta_steps=200):
    """Distil; print and return the accuracy of training on 12 real points and on 12 distilled ones."""
    x, labels = spirals()
    chosen = torch.linspace(0, 2 * POINTS - 1, DISTILLED).round().long()
    targets = F.one_hot(labels[chosen], 2).float()
    net = tp.functional(nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2)))
    starts = tp.vmap(lambda key: net.init(key)[0])(tp.random.split(tp.random.key(0), 8))
    outer = tp.optim.adam(0.03)

    def logits(meta, start):
        loss = lambda params: F.cross_entropy(net(params, meta["points"]), targets)  # noqa: E731
        optimizer = tp.optim.sgd(meta["log_rate"].exp(), momentum=0.9)
        return net(tp.train.unroll(loss, start, optimizer, STEPS).params, x)

    def meta_loss(meta):
        return tp.vmap(lambda start: F.cross_entropy(logits(meta, start), labels))(starts).mean()

    def accuracy(meta):
        new = net.init(tp.random.key(99))[0]
        return (logits(meta, new).argmax(1) == labels).float().mean().item()

    def step(carry, _):
        meta, state = carry
        value, grads = tp.value_and_grad(meta_loss)(meta)
        return outer.step(grads, state, meta), value

    meta = {"points": x[chosen], "log_rate": torch.tensor(-1.0)}
    before = accuracy(meta)
    (meta, _), _ = tp.jit(lambda carry: tp.scan(step, carry, None, meta_steps))((meta, outer.init(meta)))
    after = accuracy(meta)
    print(f"accuracy on all points: {before:.3f} trained on {DISTILLED} real ones, {after:.3f} on distilled ones")
    return before, after


if __name__ == "__main__":
    main()

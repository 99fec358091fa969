"""Learned weights of training examples (Ren et al. 2018, arXiv:1803.09050), by hyper-gradients through training.

A third of the labels is wrong. A few clean examples are the outer loss; the weight of each training example is learned.
"""

import torch
from torch.nn import functional as F

import torchpure as tp

TRAIN, CLEAN, DIM, STEPS = 90, 30, 5, 20


def main(meta_steps=60):
    """Learn the weights; print and return the accuracy without and with them, and the mean weights of bad and good."""
    keys = tp.random.split(tp.random.key(0), 3)
    truth = tp.random.normal(keys[0], (DIM,))
    x = tp.random.normal(keys[1], (TRAIN + CLEAN + 500, DIM))
    y = (x @ truth > 0).float()
    is_bad = torch.arange(TRAIN) % 3 == 0
    x_train, y_train = x[:TRAIN], torch.where(is_bad, 1 - y[:TRAIN], y[:TRAIN])
    x_clean, y_clean = x[TRAIN : TRAIN + CLEAN], y[TRAIN : TRAIN + CLEAN]
    x_test, y_test = x[TRAIN + CLEAN :], y[TRAIN + CLEAN :]
    inner, outer = tp.optim.sgd(1.0), tp.optim.adam(0.3)

    def fit(logits):
        weights = logits.softmax(0)

        def loss(w):
            return (weights * F.binary_cross_entropy_with_logits(x_train @ w, y_train, reduction="none")).sum()

        return tp.train.unroll(loss, torch.zeros(DIM), inner, STEPS).params

    def clean_loss(logits):
        return F.binary_cross_entropy_with_logits(x_clean @ fit(logits), y_clean)

    def accuracy(logits):
        return ((x_test @ fit(logits) > 0) == (y_test > 0.5)).float().mean().item()

    logits = torch.zeros(TRAIN)
    before, state = accuracy(logits), outer.init(logits)
    gradient = tp.grad(clean_loss)
    for _ in range(meta_steps):
        logits, state = outer.step(gradient(logits), state, logits)
    weights = logits.softmax(0)
    bad, good = weights[is_bad].mean().item(), weights[~is_bad].mean().item()
    print(
        f"accuracy {before:.3f} with equal weights, {accuracy(logits):.3f} with learned; weights {bad:.4f}, {good:.4f}"
    )
    return before, accuracy(logits), bad, good


if __name__ == "__main__":
    main()

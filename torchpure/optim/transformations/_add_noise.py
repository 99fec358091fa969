"""Annealed gradient noise (Neelakantan et al. 2015, arXiv:1511.06807, equation 1)."""

from typing import NamedTuple

from torchpure import random, tree
from torchpure._types import Grads, Key, Params, Step, Updates
from torchpure.optim.core import Number, Optimizer, active, check_positive, count, safe_sqrt


class AddNoiseState(NamedTuple):
    """State of `add_noise`."""

    step: Step  # float64, shape ()
    key: Key  # the noise of the steps to come


def add_noise(eta: Number, gamma: Number, key: Key) -> Optimizer[AddNoiseState]:
    """Add Gaussian noise of variance eta / tᵞ at step t = 1, 2, …: u = g + √(eta / tᵞ) n.

    The state carries the key; each leaf draws with its own. A complex leaf draws for both of its parts.

    Raises:
        ValueError: `eta` or `gamma` is negative.

    >>> import torch
    >>> noise = add_noise(0.1, 0.5, random.key(0))
    >>> state = noise.init(torch.zeros(2))
    >>> bool((noise.update(torch.zeros(2), state, torch.zeros(2))[0] != 0).all())
    True
    """
    check_positive("add_noise", eta=eta, gamma=gamma)

    def update(grads: Grads, state: AddNoiseState, params: Params) -> tuple[Updates, AddNoiseState]:
        (g, _), restore = active("add_noise", grads, (), params)
        step = state.step + 1
        deviation = safe_sqrt(eta / step**gamma)
        later, now = random.split(state.key)
        noise = [random.normal(random.fold_in(now, i), leaf.shape, dtype=leaf.dtype) for i, leaf in enumerate(g)]
        return restore(tree.add(g, tree.scale(noise, deviation))), AddNoiseState(step, later)

    return Optimizer(lambda params: AddNoiseState(count(params), key.clone()), update)

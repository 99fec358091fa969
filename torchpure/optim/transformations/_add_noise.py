"""Annealed gradient noise (Neelakantan et al. 2015, arXiv:1511.06807, equation 1)."""

from typing import NamedTuple

from torchpure import random, tree
from torchpure._types import Grads, Key, Params, Step, Updates
from torchpure.optim.core import Number, Optimizer, active_leaves, check_nonnegative, init_step_count, safe_sqrt


class AddNoiseState(NamedTuple):
    """State of `add_noise`."""

    step: Step  # float64, shape ()
    key: Key  # for the noise of later steps


def add_noise(eta: Number, gamma: Number, key: Key) -> Optimizer[AddNoiseState]:
    """Add Gaussian noise of variance eta / tᵞ at step t = 1, 2, …: u = g + √(eta / tᵞ) n.

    The key is in the state. Each leaf has its own noise; a complex leaf has noise in both of its parts.

    Raises:
        ValueError: `eta` or `gamma` is negative.
        TypeError: `key` is not a key.

    >>> import torch
    >>> noise = add_noise(0.1, 0.5, random.key(0))
    >>> state = noise.init(torch.zeros(2))
    >>> bool((noise.update(torch.zeros(2), state, torch.zeros(2))[0] != 0).all())
    True
    """
    check_nonnegative("add_noise", eta=eta, gamma=gamma)
    random.check_key(key, "add_noise")

    def update(grads: Grads, state: AddNoiseState, params: Params) -> tuple[Updates, AddNoiseState]:
        (g, _), rebuild = active_leaves("add_noise", grads, (), params)
        step = state.step + 1
        stddev = safe_sqrt(eta / step**gamma)
        next_key, noise_key = random.split(state.key)
        noise = [random.normal(random.fold_in(noise_key, i), leaf.shape, dtype=leaf.dtype) for i, leaf in enumerate(g)]
        return rebuild(tree.add(g, tree.scale(noise, stddev))), AddNoiseState(step, next_key)

    return Optimizer(lambda params: AddNoiseState(init_step_count(params), key.clone()), update)

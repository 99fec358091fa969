"""Resilient propagation (Riedmiller and Braun 1993, "A direct adaptive method for faster backpropagation learning")."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Number, Optimizer, check_above, check_positive, leafwise, moments, number


class RpropState(NamedTuple):
    """State of `rprop`."""

    size: Params  # of the step of each entry
    last: Params  # the last update, 0 after a change of sign


def rprop(
    learning_rate: Number,
    *,
    eta_minus: Number = 0.5,
    eta_plus: Number = 1.2,
    min_step_size: Number = 1e-6,
    max_step_size: Number = 50.0,
) -> Optimizer[RpropState]:
    """Step against the sign of each entry, by a size that grows while the sign stays and shrinks when it changes.

    The first size is `learning_rate`. After a change of sign an entry stays for one step, as in torch; optax's
    updates are these, one step late.

    Raises:
        ValueError: a number is negative, or `max_step_size` is below `min_step_size`.

    >>> opt, params = rprop(0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([-3.0]), opt.init(params), params)[0]
    tensor([1.5000])
    """
    check_positive("rprop", learning_rate=learning_rate, eta_minus=eta_minus, min_step_size=min_step_size)
    check_above("rprop", 0, eta_plus=eta_plus, max_step_size=max_step_size)

    def rule(g: Tensor, size: Tensor, last: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        agreement = -g * last  # the last update points against the last gradient
        moved = torch.where(agreement > 0, size * eta_plus, size * eta_minus)
        bounded = torch.minimum(torch.maximum(moved, number(min_step_size, g)), number(max_step_size, g))
        size = torch.where(agreement == 0, size, bounded)
        u = torch.where(agreement < 0, 0, -size * torch.sign(g))
        return u, size, u.clone()

    def update(grads: Grads, state: RpropState, params: Params) -> tuple[Updates, RpropState]:
        updates, size, last = leafwise("rprop", rule, grads, tuple(state), params)
        return updates, RpropState(size, last)

    return Optimizer(lambda params: RpropState(moments(params, value=learning_rate), moments(params)), update)

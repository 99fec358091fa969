"""Resilient propagation (Riedmiller and Braun 1993, "A direct adaptive method for faster backpropagation learning")."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_above,
    check_nonnegative,
    hint_torch_keywords,
    init_moments,
    leafwise,
    scalar_like,
)


class RpropState(NamedTuple):
    """State of `rprop`."""

    size: Params  # step size of each entry
    last: Params  # the last update; 0 after a change of sign


@hint_torch_keywords
def rprop(
    learning_rate: Number,
    *,
    eta_minus: Number = 0.5,
    eta_plus: Number = 1.2,
    min_step_size: Number = 1e-6,
    max_step_size: Number = 50.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[RpropState]:
    """Step with Rprop: p ← p − size sign(g), with a step size for each entry.

    The size starts at `learning_rate`. It is multiplied by `eta_plus` if the gradient has the sign of the last one, and
    by `eta_minus` if the sign changed. Where the sign changed, the parameter stays for one step, as in torch. The
    updates of optax are the same, one step later.

    Raises:
        ValueError: a number is negative, or `max_step_size` is below `min_step_size`.

    >>> opt, params = rprop(0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([-3.0]), opt.init(params), params)[0]
    tensor([1.5000])
    """
    check_nonnegative("rprop", learning_rate=learning_rate, eta_minus=eta_minus, min_step_size=min_step_size)
    check_above("rprop", 0, eta_plus=eta_plus, max_step_size=max_step_size)

    def rule(g: Tensor, size: Tensor, last: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        agreement = -g * last  # the last update has the opposite sign of the last gradient
        scaled = torch.where(agreement > 0, size * eta_plus, size * eta_minus)
        bounded = torch.minimum(torch.maximum(scaled, scalar_like(min_step_size, g)), scalar_like(max_step_size, g))
        size = torch.where(agreement == 0, size, bounded)
        u = torch.where(agreement < 0, 0, -size * torch.sign(g))
        return u, size, u.clone()

    def update(grads: Grads, state: RpropState, params: Params) -> tuple[Updates, RpropState]:
        updates, size, last = leafwise("rprop", rule, grads, tuple(state), params)
        return updates, RpropState(size, last)

    return Optimizer(
        lambda params: RpropState(
            init_moments(params, accumulator_dtype, value=learning_rate), init_moments(params, accumulator_dtype)
        ),
        update,
    )

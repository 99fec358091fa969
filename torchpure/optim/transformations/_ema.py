"""Exponential moving average of updates, with the bias correction of Adam (Kingma and Ba 2015, section 3)."""

from typing import NamedTuple

import torch

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    bias_correction,
    check_unit_interval,
    ema_update,
    init_moments,
    init_step_count,
    leafwise,
)


class EmaState(NamedTuple):
    """State of `ema`."""

    step: Step  # float64, shape ()
    ema: Params  # running mean of the gradients, without bias correction


def ema(decay: Number, *, debias: bool = True, accumulator_dtype: torch.dtype | None = None) -> Optimizer[EmaState]:
    """Average gradients: m ← decay m + (1 − decay) g. The update is m / (1 − decayᵗ), or m without `debias`.

    Raises:
        ValueError: `decay` is not in [0, 1).

    >>> average = ema(0.9)
    >>> average.update(torch.tensor([2.0]), average.init(torch.zeros(1)), torch.zeros(1))[0]
    tensor([2.])
    """
    check_unit_interval("ema", decay=decay)

    def update(grads: Grads, state: EmaState, params: Params) -> tuple[Updates, EmaState]:
        step = state.step + 1

        def rule(g, m, p):
            m = ema_update(m, g, decay)
            return (m / bias_correction(decay, step) if debias else m), m

        updates, mean = leafwise("ema", rule, grads, (state.ema,), params)
        return updates, EmaState(step, mean)

    return Optimizer(lambda params: EmaState(init_step_count(params), init_moments(params, accumulator_dtype)), update)

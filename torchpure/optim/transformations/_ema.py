"""Exponential moving averages as a transformation; the correction is Adam's (Kingma and Ba 2015, section 3)."""

from typing import NamedTuple

import torch

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import Number, Optimizer, bias, blend, check_unit, count, leafwise, moments


class EmaState(NamedTuple):
    """State of `ema`."""

    step: Step  # float64, shape ()
    ema: Params  # running mean of the gradients, not corrected


def ema(decay: Number, *, debias: bool = True, accumulator_dtype: torch.dtype | None = None) -> Optimizer[EmaState]:
    """Average gradients: m ← decay m + (1 − decay) g. The update is m / (1 − decayᵗ), or m without `debias`.

    Raises:
        ValueError: `decay` is not in [0, 1).

    >>> average = ema(0.9)
    >>> average.update(torch.tensor([2.0]), average.init(torch.zeros(1)), torch.zeros(1))[0]
    tensor([2.])
    """
    check_unit("ema", decay=decay)

    def update(grads: Grads, state: EmaState, params: Params) -> tuple[Updates, EmaState]:
        step = state.step + 1

        def rule(g, m, p):
            m = blend(m, g, decay)
            return (m / bias(decay, step) if debias else m), m

        updates, mean = leafwise("ema", rule, grads, (state.ema,), params)
        return updates, EmaState(step, mean)

    return Optimizer(lambda params: EmaState(count(params), moments(params, accumulator_dtype)), update)

"""Momentum (Polyak 1964; Nesterov 1983), in the form of Sutskever et al. 2013, section 2."""

from typing import NamedTuple

import torch

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Number, Optimizer, check_nonnegative, init_moments, leafwise


class TraceState(NamedTuple):
    """State of `trace`."""

    trace: Params  # decaying sum of the gradients


def trace(
    decay: Number, *, nesterov: bool = False, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[TraceState]:
    """Accumulate gradients with decay: b ← g + decay b. The update is b, or g + decay b with `nesterov`.

    Raises:
        ValueError: `decay` is negative.

    >>> momentum = trace(0.5)
    >>> momentum.update(torch.tensor([1.0]), TraceState(torch.tensor([4.0])), torch.tensor([0.0]))[0]
    tensor([3.])
    """
    check_nonnegative("trace", decay=decay)

    def update(grads: Grads, state: TraceState, params: Params) -> tuple[Updates, TraceState]:
        def rule(g, b, p):
            b = g + decay * b
            return (g + decay * b if nesterov else b), b

        updates, b = leafwise("trace", rule, grads, (state.trace,), params)
        return updates, TraceState(b)

    return Optimizer(lambda params: TraceState(init_moments(params, accumulator_dtype)), update)

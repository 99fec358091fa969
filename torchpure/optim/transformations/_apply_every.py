"""Accumulate updates, and let them through every k steps."""

from typing import NamedTuple

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import Number, Optimizer, check_count, count, gate, leafwise, moments


class ApplyEveryState(NamedTuple):
    """State of `apply_every`."""

    step: Step  # float64, shape ()
    total: Params  # sum of the updates since the last that went through


def apply_every(k: Number = 1) -> Optimizer[ApplyEveryState]:
    """Sum updates, and give the sum at every k-th step, zero at the others.

    The other parts of a chain still see each gradient; `multi_steps` is for a large batch in parts.

    Raises:
        ValueError: `k` is not a whole number, at least 1.

    >>> import torch
    >>> every, params = apply_every(2), torch.zeros(1)
    >>> _, state = every.update(torch.tensor([1.0]), every.init(params), params)
    >>> every.update(torch.tensor([2.0]), state, params)[0]
    tensor([3.])
    """
    check_count("apply_every", k=k)

    def update(grads: Grads, state: ApplyEveryState, params: Params) -> tuple[Updates, ApplyEveryState]:
        place = state.step % k

        def rule(g, total, p):
            total = g + (place != 0) * total
            return total, total

        updates, total = leafwise("apply_every", rule, grads, (state.total,), params)
        return gate(place == k - 1, updates), ApplyEveryState(state.step + 1, total)

    return Optimizer(lambda params: ApplyEveryState(count(params), moments(params)), update)

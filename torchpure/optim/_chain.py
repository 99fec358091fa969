"""Optimizers in a row."""

from typing import Any

from torchpure._types import Grads, Params, Updates

from ._base import Optimizer


def chain(*optimizers: Optimizer[Any]) -> Optimizer[tuple[Any, ...]]:
    """Pass the updates of each optimizer to the next as gradients: `chain(clip_by_global_norm(1.0), adam(1e-2))`.

    Law: `chain(a) == a` and `chain(chain(a, b), c) == chain(a, b, c)`, up to the nesting of the state.

    Raises:
        ValueError: there is no optimizer.
    """
    if not optimizers:
        raise ValueError("chain: wanted at least one optimizer")
    *outer, last = optimizers

    def init(params: Params) -> tuple[Any, ...]:
        return tuple(optimizer.init(params) for optimizer in optimizers)

    def update(grads: Grads, state: tuple[Any, ...], params: Params) -> tuple[Updates, tuple[Any, ...]]:
        states = []
        for optimizer, part in zip(optimizers, state, strict=True):
            grads, part = optimizer.update(grads, part, params)
            states.append(part)
        return grads, tuple(states)

    def kernel(grads: Grads, state: tuple[Any, ...], params: Params) -> tuple[Params, tuple[Any, ...]]:
        states = []
        for optimizer, part in zip(outer, state, strict=False):
            grads, part = optimizer.update(grads, part, params)
            states.append(part)
        params, part = last.step(grads, state[-1], params)
        return params, (*states, part)

    return Optimizer(init, update, kernel)

"""Chains: several optimizers, one after another."""

from collections.abc import Iterable
from typing import Any

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Optimizer, check_optimizer, extra_names


def chain(*optimizers: Optimizer[Any]) -> Optimizer[tuple[Any, ...]]:
    """Pass the updates of each optimizer to the next one as gradients: `chain(clip_by_global_norm(1.0), adam(1e-2))`.

    Law: `chain(a) == a` and `chain(chain(a, b), c) == chain(a, b, c)`, up to the nesting of the state.

    Raises:
        ValueError: no optimizer is given.
        TypeError: an argument is not an optimizer.

    >>> import torch
    >>> from torchpure.optim import clip_by_global_norm, sgd
    >>> optimizer = chain(clip_by_global_norm(1.0), sgd(0.5))
    >>> optimizer.step(torch.tensor([3.0]), optimizer.init(torch.zeros(1)), torch.zeros(1))[0]
    tensor([-0.5000])
    """
    if not optimizers:
        raise ValueError("chain: wanted at least one optimizer")
    _check_kind("chain", enumerate(optimizers))
    *outer, last = optimizers

    def init(params: Params) -> tuple[Any, ...]:
        return tuple(optimizer.init(params) for optimizer in optimizers)

    def update(grads: Grads, state: tuple[Any, ...], params: Params, **extra: Any) -> tuple[Updates, tuple[Any, ...]]:
        states = []
        for optimizer, part in zip(optimizers, state, strict=True):
            grads, part = optimizer.update(grads, part, params, **extra)
            states.append(part)
        return grads, tuple(states)

    def kernel(grads: Grads, state: tuple[Any, ...], params: Params, **extra: Any) -> tuple[Params, tuple[Any, ...]]:
        states = []
        for optimizer, part in zip(outer, state[:-1], strict=True):
            grads, part = optimizer.update(grads, part, params, **extra)
            states.append(part)
        params, part = last.step(grads, state[-1], params, **extra)
        return params, (*states, part)

    return Optimizer(init, update, kernel, extra_names(*optimizers))


def named_chain(*pairs: tuple[str, Optimizer[Any]]) -> Optimizer[dict[str, Any]]:
    """Chain optimizers under names, so that the state is a dict: `named_chain(("clip", clip(1.0)), ("adam", adam(…)))`.

    Raises:
        ValueError: no pair is given, or a name comes twice.
        TypeError: the second part of a pair is not an optimizer.

    >>> from torchpure import optim
    >>> named_chain(("half", optim.scale(0.5)), ("descend", optim.sgd(0.1))).init(None).keys()
    dict_keys(['half', 'descend'])
    """
    labels = [label for label, _ in pairs]
    if len(set(labels)) < len(labels):
        raise ValueError(f"named_chain: each name must come once, got {labels}")
    _check_kind("named_chain", pairs)
    chained = chain(*(optimizer for _, optimizer in pairs))

    def init(params: Params) -> dict[str, Any]:
        return dict(zip(labels, chained.init(params), strict=True))

    def update(grads: Grads, state: dict[str, Any], params: Params, **extra: Any) -> tuple[Updates, dict[str, Any]]:
        updates, states = chained.update(grads, tuple(state[label] for label in labels), params, **extra)
        return updates, dict(zip(labels, states, strict=True))

    return Optimizer(init, update, extra=chained.extra)


def _check_kind(caller: str, optimizers: Iterable[tuple[Any, Any]]) -> None:
    for place, optimizer in optimizers:
        check_optimizer(f"{caller}: at {place!r}", optimizer)

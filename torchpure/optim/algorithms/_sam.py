"""Sharpness-aware minimisation (Foret, Kleiner, Mobahi and Neyshabur 2021, arXiv:2010.01412, algorithm 1)."""

from typing import Any, NamedTuple

from torchpure import tree
from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import (
    Optimizer,
    apply_updates,
    check_count,
    check_given,
    check_optimizer,
    copy_params,
    extra_names,
    init_step_count,
    leafwise,
    select,
)


class SamState(NamedTuple):
    """State of `sam`."""

    step: Step  # float64, shape ()
    inner: Any  # state of `optimizer`
    adversary: Any  # state of `adv_optimizer`
    cache: Params | None  # parameters before the ascent; None in the opaque mode


def sam(
    optimizer: Optimizer[Any],
    adv_optimizer: Optimizer[Any],
    *,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
) -> Optimizer[SamState]:
    """Step with the gradient at perturbed parameters: ascend with `adv_optimizer`, go back, descend with `optimizer`.

    Of each `sync_period` steps, all but the last ascend. The last one goes back to the parameters before the ascent,
    and descends from there; use only the parameters after such a step. In the opaque mode each step does all of this,
    and needs `grad_fn=`, the gradient as a function of the parameters. The ascent of the paper is
    `chain(normalize_by_update_norm(), sgd(rho))`. `reset_state` resets the state of `adv_optimizer` after each descent.

    Raises:
        ValueError: `sync_period` is not a whole number, at least 1.

    >>> import torch
    >>> from torchpure import optim
    >>> opt, params = sam(optim.sgd(0.1), optim.sgd(0.5), opaque_mode=True), torch.tensor([1.0])
    >>> opt.step(2 * params, opt.init(params), params, grad_fn=lambda p: 2 * p)[0]
    tensor([0.6000])
    """
    check_optimizer("sam", optimizer, adv_optimizer)
    check_count("sam", sync_period=sync_period)

    def init(params: Params) -> SamState:
        cache = None if opaque_mode else copy_params(params)
        return SamState(init_step_count(params), optimizer.init(params), adv_optimizer.init(params), cache)

    if opaque_mode:
        update = _opaque(optimizer, adv_optimizer, sync_period, reset_state)
        return Optimizer(init, update, extra=tuple(dict.fromkeys(("grad_fn", *extra_names(optimizer, adv_optimizer)))))
    return Optimizer(
        init,
        _transparent(optimizer, adv_optimizer, sync_period, reset_state),
        extra=extra_names(optimizer, adv_optimizer),
    )


def _transparent(down: Optimizer[Any], up: Optimizer[Any], period: int, reset: bool) -> Any:
    def sam(grads: Grads, state: SamState, params: Params, **extra: Any) -> tuple[Updates, SamState]:
        check_given("sam", params)
        position = state.step % period
        is_first, is_last = position == 0, position == period - 1
        stored = tree.map(lambda p, cache: p if cache is None else cache, params, state.cache)
        start = select(is_first, params, stored)
        ascent, adversary = up.update(grads, state.adversary, params, **extra)
        descent, inner = down.update(grads, state.inner, start, **extra)
        from_start = leafwise("sam", lambda u, start, p: (start - p + u, start), descent, (start,), params)[0]
        updates = tree.map(lambda a, b: None if a is None else select(is_last, a, -b), from_start, ascent)
        adversary = select(is_last, up.init(params) if reset else state.adversary, adversary)
        cache = tree.map(lambda new, old: None if old is None else new, start, state.cache)
        return updates, SamState(state.step + 1, select(is_last, inner, state.inner), adversary, cache)

    return sam


def _opaque(down: Optimizer[Any], up: Optimizer[Any], period: int, reset: bool) -> Any:
    def sam(grads: Grads, state: SamState, params: Params, *, grad_fn: Any, **extra: Any) -> tuple[Updates, SamState]:
        check_given("sam", params)
        ascended, adversary = params, state.adversary
        for _ in range(period - 1):
            ascent, adversary = up.update(grads, adversary, ascended, grad_fn=grad_fn, **extra)
            ascended = apply_updates(ascended, tree.map(lambda u: None if u is None else -u, ascent))
            grads = grad_fn(ascended)
        updates, inner = down.update(grads, state.inner, params, grad_fn=grad_fn, **extra)
        return updates, SamState(state.step + 1, inner, up.init(params) if reset else adversary, None)

    return sam

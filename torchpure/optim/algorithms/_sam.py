"""Sharpness-aware minimisation (Foret, Kleiner, Mobahi and Neyshabur 2021, arXiv:2010.01412, algorithm 1)."""

from typing import Any, NamedTuple

from torchpure import tree
from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import Optimizer, apply_updates, check_count, copies, count, leafwise, names, select


class SamState(NamedTuple):
    """State of `sam`."""

    step: Step  # float64, shape ()
    inner: Any  # of the optimizer
    adversary: Any  # of the optimizer that goes up
    cache: Params | None  # where the ascent began; None in the opaque mode


def sam(
    optimizer: Optimizer[Any],
    adv_optimizer: Optimizer[Any],
    *,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
) -> Optimizer[SamState]:
    """Go up with one optimizer, and from where that began down with the other, by the gradient at the top.

    Of each `sync_period` steps all but the last go up; the last goes back and down, so that only every
    `sync_period`-th parameters count. In the opaque mode each step does all of it, and needs `grad_fn=`, the gradient
    as a function of the parameters. The paper's ascent is `chain(normalize_by_update_norm(), sgd(rho))`. With
    `reset_state` the ascent starts anew each time.

    Raises:
        ValueError: `sync_period` is not a whole number, at least 1.

    >>> import torch
    >>> from torchpure import optim
    >>> opt, params = sam(optim.sgd(0.1), optim.sgd(0.5), opaque_mode=True), torch.tensor([1.0])
    >>> opt.step(2 * params, opt.init(params), params, grad_fn=lambda p: 2 * p)[0]
    tensor([0.6000])
    """
    check_count("sam", sync_period=sync_period)

    def init(params: Params) -> SamState:
        cache = None if opaque_mode else copies(params)
        return SamState(count(params), optimizer.init(params), adv_optimizer.init(params), cache)

    if opaque_mode:
        update = _opaque(optimizer, adv_optimizer, sync_period, reset_state)
        return Optimizer(init, update, extra=tuple(dict.fromkeys(("grad_fn", *names(optimizer, adv_optimizer)))))
    return Optimizer(
        init, _transparent(optimizer, adv_optimizer, sync_period, reset_state), extra=names(optimizer, adv_optimizer)
    )


def _transparent(down: Optimizer[Any], up: Optimizer[Any], period: int, reset: bool) -> Any:
    def sam(grads: Grads, state: SamState, params: Params, **extra: Any) -> tuple[Updates, SamState]:
        place = state.step % period
        first, last = place == 0, place == period - 1
        kept = tree.map(lambda p, cache: p if cache is None else cache, params, state.cache)
        began = select(first, params, kept)
        ascent, adversary = up.update(grads, state.adversary, params, **extra)
        descent, inner = down.update(grads, state.inner, began, **extra)
        back = leafwise("sam", lambda u, start, p: (start - p + u, start), descent, (began,), params)[0]
        updates = tree.map(lambda a, b: None if a is None else select(last, a, -b), back, ascent)
        adversary = select(last, up.init(params) if reset else state.adversary, adversary)
        cache = tree.map(lambda new, old: None if old is None else new, began, state.cache)
        return updates, SamState(state.step + 1, select(last, inner, state.inner), adversary, cache)

    return sam


def _opaque(down: Optimizer[Any], up: Optimizer[Any], period: int, reset: bool) -> Any:
    def sam(grads: Grads, state: SamState, params: Params, *, grad_fn: Any, **extra: Any) -> tuple[Updates, SamState]:
        top, adversary = params, state.adversary
        for _ in range(period - 1):
            ascent, adversary = up.update(grads, adversary, top, grad_fn=grad_fn, **extra)
            top = apply_updates(top, tree.map(lambda u: None if u is None else -u, ascent))
            grads = grad_fn(top)
        updates, inner = down.update(grads, state.inner, params, grad_fn=grad_fn, **extra)
        return updates, SamState(state.step + 1, inner, up.init(params) if reset else adversary, None)

    return sam

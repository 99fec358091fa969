"""MoMo and MoMo-Adam (Schaipp, Ohana, Eickenberg, Defazio and Gower 2023, arXiv:2305.07583, algorithms 1 to 3)."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active,
    bias,
    blend,
    check_positive,
    check_scalar,
    check_unit,
    count,
    moments,
    number,
    safe_sqrt,
    scalar,
    value_at,
)

_SMALL = 2.0**-52


class MomoState(NamedTuple):
    """State of `momo`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    value: Tensor  # running mean of the losses; float64, shape ()
    inner: Tensor  # running mean of ⟨g, p⟩; float64, shape ()
    bound: Tensor  # lower bound of the loss; float64, shape ()


class MomoAdamState(NamedTuple):
    """State of `momo_adam`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares
    value: Tensor  # running mean of the losses; float64, shape ()
    inner: Tensor  # running mean of ⟨g, p⟩; float64, shape ()
    bound: Tensor  # lower bound of the loss; float64, shape ()


def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    beta: Number = 0.9,
    lower_bound: Number = 0.0,
    weight_decay: Number = 0.0,
    adapt_lower_bound: bool = False,
) -> Optimizer[MomoState]:
    """Step along the mean gradient, as far as a model of the loss allows; needs `value=`, the loss.

    p ← p / c − min(learning_rate, τ) m with c = 1 + learning_rate weight_decay, and
    τ = max(c (f̄ − bound − γ) + ⟨m, p⟩, 0) / ‖m‖², where f̄, γ and m are running means of the loss, of ⟨g, p⟩ and of g
    that begin at their first values.

    Raises:
        ValueError: `beta` is not in [0, 1), `learning_rate` or `weight_decay` negative.

    >>> opt, params = momo(), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    check_scalar("momo", learning_rate)
    check_unit("momo", beta=beta)
    check_positive("momo", weight_decay=weight_decay)

    def init(params: Params) -> MomoState:
        value, inner, bound = (scalar(x, params) for x in (0.0, 0.0, lower_bound))
        return MomoState(count(params), moments(params), value, inner, bound)

    def update(grads: Grads, state: MomoState, params: Params, *, value: Tensor) -> tuple[Updates, MomoState]:
        (g, m, p), restore = active("momo", grads, (state.mean,), params)
        keep = torch.where(state.step == 0, 0, number(beta, like=state.step))
        mean_value, inner = blend(state.value, value, keep), blend(state.inner, _dot(g, p, state.bound), keep)
        m = [blend(old, new, keep) for old, new in zip(m, g, strict=True)]
        lr, along, squares = value_at(learning_rate, state.step), _dot(m, p, inner), _dot(m, m, inner)
        shrink, gap = 1 + lr * weight_decay, mean_value - inner
        bound = _lowered(state.bound, shrink * gap + along, shrink, lower_bound) if adapt_lower_bound else state.bound
        length = _length(lr, shrink * (gap - bound) + along, squares)
        moves = [-lr * weight_decay / shrink * b - length * a for a, b in zip(m, p, strict=True)]
        if adapt_lower_bound:
            bound = (gap + along - 0.5 * length * squares).clamp(min=lower_bound)
        new = MomoState(state.step + 1, restore(m, state.mean), mean_value, inner, bound + 0)
        return restore(moves), new

    return Optimizer(init, update, extra=("value",))


def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    lower_bound: Number = 0.0,
    weight_decay: Number = 0.0,
    adapt_lower_bound: bool = False,
) -> Optimizer[MomoAdamState]:
    """Step along Adam's direction, as far as a model of the loss allows; needs `value=`, the loss.

    As `momo`, with lengths measured by D = eps + √v̂, and means that begin at 0 and are corrected for it.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `learning_rate`, `eps` or `weight_decay` negative.

    >>> opt, params = momo_adam(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.9000])
    """
    check_scalar("momo_adam", learning_rate)
    check_unit("momo_adam", b1=b1, b2=b2)
    check_positive("momo_adam", eps=eps, weight_decay=weight_decay)

    def init(params: Params) -> MomoAdamState:
        value, inner, bound = (scalar(x, params) for x in (0.0, 0.0, lower_bound))
        return MomoAdamState(count(params), moments(params), moments(params), value, inner, bound)

    def update(grads: Grads, state: MomoAdamState, params: Params, *, value: Tensor) -> tuple[Updates, MomoAdamState]:
        (g, m, v, p), restore = active("momo_adam", grads, (state.mean, state.square), params)
        step = state.step + 1
        mean_value, inner = blend(state.value, value, b1), blend(state.inner, _dot(g, p, state.bound), b1)
        m = [blend(old, new, b1) for old, new in zip(m, g, strict=True)]
        v = [blend(old, new.square(), b2) for old, new in zip(v, g, strict=True)]
        direction = [a / (eps + safe_sqrt(b / bias(b2, step))) for a, b in zip(m, v, strict=True)]
        lr, along, squares = value_at(learning_rate, state.step), _dot(m, p, inner), _dot(m, direction, inner)
        whole, shrink, gap = bias(b1, step), 1 + lr * weight_decay, mean_value - inner
        cap = shrink * gap + along
        bound = _lowered(state.bound, cap, whole * shrink, lower_bound) if adapt_lower_bound else state.bound
        length = _length(lr / whole, cap - shrink * whole * bound, squares)
        moves = [-lr * weight_decay / shrink * b - length * a for a, b in zip(direction, p, strict=True)]
        if adapt_lower_bound:
            bound = ((gap + along - 0.5 * length * squares) / whole).clamp(min=lower_bound)
        means = restore(m, state.mean), restore(v, state.square)
        return restore(moves), MomoAdamState(step, *means, mean_value, inner, bound + 0)

    return Optimizer(init, update, extra=("value",))


def _dot(one: list[Tensor], two: list[Tensor], like: Tensor) -> Tensor:
    return sum(((a * b).sum() for a, b in zip(one, two, strict=True)), start=torch.zeros_like(like))


def _lowered(bound: Tensor, cap: Tensor, unit: Number, least: Number) -> Tensor:
    """Lower a bound that the model already lies below, so that there is a step to go."""
    return torch.where(cap < unit * bound, (cap / (2 * unit)).clamp(min=least), bound)


def _length(most: Number, gap: Tensor, squares: Tensor) -> Tensor:
    """Return the step length at which the model reaches the bound, at most `most`; 0 where there is no slope."""
    some = squares > _SMALL
    reach = gap.clamp(min=0) / torch.where(some, squares, 1)
    return torch.where(some, torch.where(reach < most, reach, most), 0)

"""MoMo and MoMo-Adam (Schaipp, Ohana, Eickenberg, Defazio and Gower 2023, arXiv:2305.07583, algorithms 1 to 3)."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active_leaves,
    bias_correction,
    check_nonnegative,
    check_scalar_or_schedule,
    check_unit_interval,
    ema_update,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_scalar,
    init_step_count,
    safe_sqrt,
    scalar_like,
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


@hint_torch_keywords
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    beta: Number = 0.9,
    lower_bound: Number = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[MomoState]:
    """Step with MoMo: p ← p / c − min(learning_rate, τ) m, with c = 1 + learning_rate weight_decay.

    A step needs `value=`, the loss. τ = max(c (f̄ − bound − γ) + ⟨m, p⟩, 0) / ‖m‖² is the step size at which a model of
    the loss reaches its lower bound. f̄, γ and m are running means of the loss, of ⟨g, p⟩ and of g; they start at their
    first values. With `adapt_lower_bound` the bound is estimated, and `lower_bound` is its minimum.

    Raises:
        ValueError: `beta` is not in [0, 1), or `learning_rate` or `weight_decay` is negative.

    >>> opt, params = momo(), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    check_scalar_or_schedule("momo", learning_rate)
    check_unit_interval("momo", beta=beta)
    check_scalar_or_schedule("momo", weight_decay, "weight_decay")

    def init(params: Params) -> MomoState:
        value, inner, bound = (init_scalar(x, params) for x in (0.0, 0.0, lower_bound))
        return MomoState(init_step_count(params), init_moments(params, accumulator_dtype), value, inner, bound)

    def update(grads: Grads, state: MomoState, params: Params, *, value: Tensor) -> tuple[Updates, MomoState]:
        shrinkage = evaluate_schedule(weight_decay, state.step)
        (g, m, p), rebuild = active_leaves("momo", grads, (state.mean,), params)
        decay = torch.where(state.step == 0, 0, scalar_like(beta, like=state.step))
        mean_value, inner = (
            ema_update(state.value, value, decay),
            ema_update(state.inner, _dot(g, p, state.bound), decay),
        )
        m = [ema_update(old, new, decay) for old, new in zip(m, g, strict=True)]
        lr, m_dot_p, squares = evaluate_schedule(learning_rate, state.step), _dot(m, p, inner), _dot(m, m, inner)
        shrink, gap = 1 + lr * shrinkage, mean_value - inner
        bound = (
            _lower_bound(state.bound, shrink * gap + m_dot_p, shrink, lower_bound) if adapt_lower_bound else state.bound
        )
        length = _length(lr, shrink * (gap - bound) + m_dot_p, squares)
        updates = [-lr * shrinkage / shrink * b - length * a for a, b in zip(m, p, strict=True)]
        if adapt_lower_bound:
            bound = (gap + m_dot_p - 0.5 * length * squares).clamp(min=lower_bound)
        new = MomoState(state.step + 1, rebuild(m, state.mean), mean_value, inner, bound + 0)
        return rebuild(updates), new

    return Optimizer(init, update, extra=("value",))


@hint_torch_keywords
def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    lower_bound: Number = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[MomoAdamState]:
    """Step with MoMo-Adam: `momo` with the preconditioner eps + √v̂ of Adam.

    A step needs `value=`, the loss. The running means start at 0, and are bias-corrected.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), or `learning_rate`, `eps` or `weight_decay` is negative.

    >>> opt, params = momo_adam(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.9000])
    """
    check_scalar_or_schedule("momo_adam", learning_rate)
    check_unit_interval("momo_adam", b1=b1, b2=b2)
    check_nonnegative("momo_adam", eps=eps)
    check_scalar_or_schedule("momo_adam", weight_decay, "weight_decay")

    def init(params: Params) -> MomoAdamState:
        value, inner, bound = (init_scalar(x, params) for x in (0.0, 0.0, lower_bound))
        return MomoAdamState(
            init_step_count(params),
            init_moments(params, accumulator_dtype),
            init_moments(params, accumulator_dtype),
            value,
            inner,
            bound,
        )

    def update(grads: Grads, state: MomoAdamState, params: Params, *, value: Tensor) -> tuple[Updates, MomoAdamState]:
        decay = evaluate_schedule(weight_decay, state.step)
        (g, m, v, p), rebuild = active_leaves("momo_adam", grads, (state.mean, state.square), params)
        step = state.step + 1
        mean_value, inner = ema_update(state.value, value, b1), ema_update(state.inner, _dot(g, p, state.bound), b1)
        m = [ema_update(old, new, b1) for old, new in zip(m, g, strict=True)]
        v = [ema_update(old, new.square(), b2) for old, new in zip(v, g, strict=True)]
        direction = [a / (eps + safe_sqrt(b / bias_correction(b2, step))) for a, b in zip(m, v, strict=True)]
        lr = evaluate_schedule(learning_rate, state.step)
        m_dot_p, squares = _dot(m, p, inner), _dot(m, direction, inner)
        correction1, shrink, gap = bias_correction(b1, step), 1 + lr * decay, mean_value - inner
        cap = shrink * gap + m_dot_p
        bound = _lower_bound(state.bound, cap, correction1 * shrink, lower_bound) if adapt_lower_bound else state.bound
        length = _length(lr / correction1, cap - shrink * correction1 * bound, squares)
        updates = [-lr * decay / shrink * b - length * a for a, b in zip(direction, p, strict=True)]
        if adapt_lower_bound:
            bound = ((gap + m_dot_p - 0.5 * length * squares) / correction1).clamp(min=lower_bound)
        means = rebuild(m, state.mean), rebuild(v, state.square)
        return rebuild(updates), MomoAdamState(step, *means, mean_value, inner, bound + 0)

    return Optimizer(init, update, extra=("value",))


def _dot(one: list[Tensor], two: list[Tensor], like: Tensor) -> Tensor:
    return sum(((a * b).sum() for a, b in zip(one, two, strict=True)), start=torch.zeros_like(like))


def _lower_bound(bound: Tensor, cap: Tensor, bound_scale: Number, min_bound: Number) -> Tensor:
    """Lower a bound that the model is already below, so that the step size is positive."""
    return torch.where(cap < bound_scale * bound, (cap / (2 * bound_scale)).clamp(min=min_bound), bound)


def _length(max_length: Number, gap: Tensor, squares: Tensor) -> Tensor:
    """Return the step size at which the model reaches the bound, at most `max_length`; 0 if the slope is 0."""
    is_nonzero = squares > _SMALL
    length = gap.clamp(min=0) / torch.where(is_nonzero, squares, 1)
    return torch.where(is_nonzero, torch.where(length < max_length, length, max_length), 0)

"""D-Adaptation for AdamW (Defazio and Mishchenko 2023, arXiv:2301.07733, algorithm 5)."""

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
    ema_update,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_scalar,
    init_step_count,
    safe_divide,
    safe_sqrt,
)


class DAdaptState(NamedTuple):
    """State of `dadapt_adamw`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of λ g
    square: Params  # running mean of g²
    total: Params  # running mean of λ g with decay √b2
    distance: Tensor  # estimate d of the distance to a solution; float64, shape ()
    numerator: Tensor  # r in the formula of d; float64, shape ()


@hint_torch_keywords
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    estim_lr0: Number = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[DAdaptState]:
    """Step with AdamW and an estimated learning rate: p ← p − m / (√v + eps) − λ weight_decay p.

    λ = learning_rate d √(1 − b2ᵗ) / (1 − b1ᵗ). m and v are running means of λ g and g². d is a lower bound of the
    distance to a solution: it starts at `estim_lr0`, and d ← max(d, r / Σ|s|). With decay √b2, s is the running mean of
    λ g, and r is that of λ ⟨g, s / (√v + eps)⟩.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = dadapt_adamw(estim_lr0=0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    b1, b2 = betas
    b3 = b2**0.5
    check_scalar_or_schedule("dadapt_adamw", learning_rate)
    check_nonnegative("dadapt_adamw", eps=eps, estim_lr0=estim_lr0)
    check_scalar_or_schedule("dadapt_adamw", weight_decay, "weight_decay")

    def init(params: Params) -> DAdaptState:
        m, v, s = (init_moments(params, accumulator_dtype) for _ in range(3))
        return DAdaptState(init_step_count(params), m, v, s, init_scalar(estim_lr0, params), init_scalar(0.0, params))

    def update(grads: Grads, state: DAdaptState, params: Params) -> tuple[Updates, DAdaptState]:
        decay = evaluate_schedule(weight_decay, state.step)
        old_trees = (state.mean, state.square, state.total)
        (g, m, v, s, p), rebuild = active_leaves("dadapt_adamw", grads, old_trees, params)
        step, zero = state.step + 1, torch.zeros_like(state.distance)
        correction1, correction2 = bias_correction(b1, step), bias_correction(b2, step)
        step_size = state.distance * evaluate_schedule(learning_rate, state.step) * safe_sqrt(correction2) / correction1
        terms = ((a * (b / (safe_sqrt(c) + eps))).sum() for a, b, c in zip(g, s, v, strict=True))
        numerator = ema_update(state.numerator, step_size * sum(terms, start=zero), b3)
        m = [ema_update(old, step_size * new, b1) for old, new in zip(m, g, strict=True)]
        v = [ema_update(old, new.square(), b2) for old, new in zip(v, g, strict=True)]
        s = [ema_update(old, step_size * new, b3) for old, new in zip(s, g, strict=True)]
        norm = (1 - b3) * sum((leaf.abs().sum() for leaf in s), start=zero)
        updates = [-a / (safe_sqrt(b) + eps) - decay * step_size * c for a, b, c in zip(m, v, p, strict=True)]
        distance = torch.maximum(state.distance, safe_divide(numerator, norm))
        m, v, s = (rebuild(new, old) for new, old in zip((m, v, s), old_trees, strict=True))
        return rebuild(updates), DAdaptState(step, m, v, s, distance, numerator)

    return Optimizer(init, update)

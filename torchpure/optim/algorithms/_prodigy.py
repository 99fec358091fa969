"""Prodigy (Mishchenko and Defazio 2023, arXiv:2306.06101, algorithm 4)."""

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
    copy_params,
    ema_update,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_scalar,
    init_step_count,
    safe_divide,
    safe_sqrt,
)


class ProdigyState(NamedTuple):
    """State of `prodigy`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of d g
    square: Params  # running mean of (d g)²
    total: Params  # weighted sum s of the gradients, with decay
    start: Params  # the initial parameters
    distance: Tensor  # estimate d of the distance to a solution; float64, shape ()
    numerator: Tensor  # r in the formula of d; float64, shape ()


@hint_torch_keywords
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    betas: tuple[Number, Number] = (0.9, 0.999),
    beta3: Number | None = None,
    eps: Number = 1e-8,
    estim_lr0: Number = 1e-6,
    estim_lr_coef: Number = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[ProdigyState]:
    """Step with Adam and an estimated learning rate: p ← p − λ m / (√v + d eps) − λ weight_decay p.

    λ = learning_rate d √(1 − b2ᵗ) / (1 − b1ᵗ). m and v are running means of d g and (d g)². d estimates the distance to
    a solution: it starts at `estim_lr0`, and d ← max(d, estim_lr_coef r / Σ|s|). With decay beta3, by default √b2, s
    and r are weighted sums of g and of ⟨g, p₀ − p⟩.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = prodigy(), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0].round(decimals=4)
    tensor([1.])
    """
    b1, b2 = betas
    b3 = b2**0.5 if beta3 is None else beta3
    check_scalar_or_schedule("prodigy", learning_rate)
    check_nonnegative("prodigy", eps=eps, estim_lr0=estim_lr0, estim_lr_coef=estim_lr_coef)
    check_scalar_or_schedule("prodigy", weight_decay, "weight_decay")

    def init(params: Params) -> ProdigyState:
        start = copy_params(params)
        m, v, s = (init_moments(params, accumulator_dtype) for _ in range(3))
        distance, numerator = (init_scalar(value, params) for value in (estim_lr0, 0.0))
        return ProdigyState(init_step_count(params), m, v, s, start, distance, numerator)

    def update(grads: Grads, state: ProdigyState, params: Params) -> tuple[Updates, ProdigyState]:
        decay = evaluate_schedule(weight_decay, state.step)
        old_trees = (state.mean, state.square, state.total, state.start)
        (g, m, v, s, start, p), rebuild = active_leaves("prodigy", grads, old_trees, params)
        step, d = state.step + 1, state.distance
        correction1, correction2 = bias_correction(b1, step), bias_correction(b2, step)
        step_size = d * evaluate_schedule(learning_rate, state.step) * safe_sqrt(correction2) / correction1
        products = ((a * (b - c)).sum() for a, b, c in zip(g, start, p, strict=True))
        inner_product = sum(products, start=torch.zeros_like(d))
        m = [ema_update(old, d * new, b1) for old, new in zip(m, g, strict=True)]
        v = [ema_update(old, (d * new).square(), b2) for old, new in zip(v, g, strict=True)]
        weight = (d if safeguard_warmup else step_size) * d / estim_lr0
        s = [b3 * old + weight * new for old, new in zip(s, g, strict=True)]
        numerator = b3 * state.numerator + d / estim_lr0 * step_size * inner_product
        norm = sum((leaf.abs().sum() for leaf in s), start=torch.zeros_like(d))
        updates = [
            -step_size * a / (safe_sqrt(b) + d * eps) - decay * step_size * c for a, b, c in zip(m, v, p, strict=True)
        ]
        distance = torch.maximum(d, safe_divide(estim_lr_coef * numerator, norm))
        new_leaves = (m, v, s, [leaf.clone() for leaf in start])
        m, v, s, start = (rebuild(new, old) for new, old in zip(new_leaves, old_trees, strict=True))
        return rebuild(updates), ProdigyState(step, m, v, s, start, distance, numerator)

    return Optimizer(init, update)

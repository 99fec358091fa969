"""D-Adaptation for AdamW (Defazio and Mishchenko 2023, arXiv:2301.07733, algorithm 5)."""

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
    count,
    moments,
    safe_divide,
    safe_sqrt,
    scalar,
    value_at,
)


class DAdaptState(NamedTuple):
    """State of `dadapt_adamw`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of λ g
    square: Params  # running mean of g²
    total: Params  # running mean of λ g with √b2
    distance: Tensor  # the estimate d of the distance to a solution; float64, shape ()
    numerator: Tensor  # of that estimate; float64, shape ()


def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    estim_lr0: Number = 1e-6,
    weight_decay: Number = 0.0,
) -> Optimizer[DAdaptState]:
    """Step as AdamW with a learning rate that is a lower bound d of the distance to a solution, and grows.

    p ← p − m / (√v + eps) − λ weight_decay p, λ = learning_rate d √(1 − b2ᵗ) / (1 − b1ᵗ); d ← max(d, r / Σ|s|), where
    s is the mean of λ g with √b2, and r that of λ ⟨g, s / (√v + eps)⟩.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = dadapt_adamw(estim_lr0=0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    b1, b2 = betas
    b3 = b2**0.5
    check_scalar("dadapt_adamw", learning_rate)
    check_positive("dadapt_adamw", eps=eps, estim_lr0=estim_lr0, weight_decay=weight_decay)

    def init(params: Params) -> DAdaptState:
        m, v, s = (moments(params) for _ in range(3))
        return DAdaptState(count(params), m, v, s, scalar(estim_lr0, params), scalar(0.0, params))

    def update(grads: Grads, state: DAdaptState, params: Params) -> tuple[Updates, DAdaptState]:
        olds = (state.mean, state.square, state.total)
        (g, m, v, s, p), restore = active("dadapt_adamw", grads, olds, params)
        step, zero = state.step + 1, torch.zeros_like(state.distance)
        step_size = state.distance * value_at(learning_rate, state.step) * safe_sqrt(bias(b2, step)) / bias(b1, step)
        terms = ((a * b / (safe_sqrt(c) + eps)).sum() for a, b, c in zip(g, s, v, strict=True))
        numerator = blend(state.numerator, step_size * sum(terms, start=zero), b3)
        m = [blend(old, step_size * new, b1) for old, new in zip(m, g, strict=True)]
        v = [blend(old, new.square(), b2) for old, new in zip(v, g, strict=True)]
        s = [blend(old, step_size * new, b3) for old, new in zip(s, g, strict=True)]
        size = (1 - b3) * sum((leaf.abs().sum() for leaf in s), start=zero)
        moves = [-a / (safe_sqrt(b) + eps) - weight_decay * step_size * c for a, b, c in zip(m, v, p, strict=True)]
        distance = torch.maximum(state.distance, safe_divide(numerator, size))
        m, v, s = (restore(new, old) for new, old in zip((m, v, s), olds, strict=True))
        return restore(moves), DAdaptState(step, m, v, s, distance, numerator)

    return Optimizer(init, update)

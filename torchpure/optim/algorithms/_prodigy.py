"""Prodigy (Mishchenko and Defazio 2023, arXiv:2306.06101, algorithm 4)."""

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
    copies,
    count,
    moments,
    safe_divide,
    safe_sqrt,
    scalar,
    value_at,
)


class ProdigyState(NamedTuple):
    """State of `prodigy`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of d g
    square: Params  # running mean of its square
    total: Params  # decaying sum of the gradients, weighted
    start: Params  # the first parameters
    distance: Tensor  # the estimate d of the distance to a solution; float64, shape ()
    numerator: Tensor  # of that estimate; float64, shape ()


def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    betas: tuple[Number, Number] = (0.9, 0.999),
    beta3: Number | None = None,
    eps: Number = 1e-8,
    estim_lr0: Number = 1e-6,
    estim_lr_coef: Number = 1.0,
    weight_decay: Number = 0.0,
    safeguard_warmup: bool = False,
) -> Optimizer[ProdigyState]:
    """Step as Adam on d g, with a learning rate d that estimates the distance to a solution.

    p ← p − λ m / (√v + d eps) − λ weight_decay p, λ = learning_rate d √(1 − b2ᵗ) / (1 − b1ᵗ);
    d ← max(d, estim_lr_coef r / Σ|s|) with r and s summed with beta3, √b2 by default.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = prodigy(), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0].round(decimals=4)
    tensor([1.])
    """
    b1, b2 = betas
    b3 = b2**0.5 if beta3 is None else beta3
    check_scalar("prodigy", learning_rate)
    check_positive("prodigy", eps=eps, estim_lr0=estim_lr0, estim_lr_coef=estim_lr_coef, weight_decay=weight_decay)

    def init(params: Params) -> ProdigyState:
        start = copies(params)
        m, v, s = (moments(params) for _ in range(3))
        return ProdigyState(count(params), m, v, s, start, scalar(estim_lr0, params), scalar(0.0, params))

    def update(grads: Grads, state: ProdigyState, params: Params) -> tuple[Updates, ProdigyState]:
        olds = (state.mean, state.square, state.total, state.start)
        (g, m, v, s, start, p), restore = active("prodigy", grads, olds, params)
        step, d = state.step + 1, state.distance
        step_size = d * value_at(learning_rate, state.step) * safe_sqrt(bias(b2, step)) / bias(b1, step)
        ahead = sum(((a * (b - c)).sum() for a, b, c in zip(g, start, p, strict=True)), start=torch.zeros_like(d))
        m = [blend(old, d * new, b1) for old, new in zip(m, g, strict=True)]
        v = [blend(old, (d * new).square(), b2) for old, new in zip(v, g, strict=True)]
        weight = (d if safeguard_warmup else step_size) * d / estim_lr0
        s = [b3 * old + weight * new for old, new in zip(s, g, strict=True)]
        numerator = b3 * state.numerator + d / estim_lr0 * step_size * ahead
        size = sum((leaf.abs().sum() for leaf in s), start=torch.zeros_like(d))
        moves = [
            -step_size * a / (safe_sqrt(b) + d * eps) - weight_decay * step_size * c
            for a, b, c in zip(m, v, p, strict=True)
        ]
        distance = torch.maximum(d, safe_divide(estim_lr_coef * numerator, size))
        news = (m, v, s, [leaf.clone() for leaf in start])
        m, v, s, start = (restore(new, old) for new, old in zip(news, olds, strict=True))
        return restore(moves), ProdigyState(step, m, v, s, start, distance, numerator)

    return Optimizer(init, update)

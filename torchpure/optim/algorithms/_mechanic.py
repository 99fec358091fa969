"""Mechanic (Cutkosky, Defazio and Mehta 2023, arXiv:2306.00144, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active,
    check_count,
    check_positive,
    copies,
    count,
    safe_sqrt,
    scalar,
)


class MechanicState(NamedTuple):
    """State of `mechanize`. The numbers have a row for each beta; float64, shape (num_betas,)."""

    step: Step  # float64, shape ()
    inner: Any  # of the base optimizer
    start: Params  # the first parameters
    reward: Tensor
    bound: Tensor
    variance: Tensor
    scale: Tensor  # whose sum is the length of the step


def mechanize(
    base_optimizer: Optimizer[Any],
    *,
    weight_decay: Number = 1e-2,
    eps: Number = 1e-8,
    s_init: Number = 1e-6,
    num_betas: int = 6,
) -> Optimizer[MechanicState]:
    """Find the length of a base optimizer's steps: p = p₀ + s Δ, with Δ the sum of its updates and s a bet on them.

    s is the sum of `num_betas` bettors' wealth over the root of their variance, with β = 1 − 0.1ⁱ; each wins
    ⟨g + weight_decay s ‖g‖ p / ‖p‖, −Δ⟩. The base optimizer keeps its schedule, at a peak of 1.

    Raises:
        ValueError: a number is negative, or `num_betas` not a whole number.

    >>> from torchpure import optim
    >>> opt, params = mechanize(optim.sgd(1.0)), torch.tensor([1.0])
    >>> bool(opt.step(torch.tensor([2.0]), opt.init(params), params)[0] < 1)
    True
    """
    check_positive("mechanize", weight_decay=weight_decay, eps=eps, s_init=s_init)
    check_count("mechanize", num_betas=num_betas)

    def init(params: Params) -> MechanicState:
        r, m, v, s = (scalar(number, params).repeat(num_betas) for number in (0.0, 0.0, 0.0, s_init))
        return MechanicState(count(params), base_optimizer.init(params), copies(params), r, m, v, s)

    def update(grads: Grads, state: MechanicState, params: Params, **extra: Any) -> tuple[Updates, MechanicState]:
        moves, inner = base_optimizer.update(grads, state.inner, params, **extra)
        (u, g, start, p), restore = active("mechanize", moves, (grads, state.start), params)
        length = state.scale.sum()
        pull = weight_decay * length * _norm(g, length) / (_norm(p, length) + eps)
        before = [(a - b) / (length + eps) for a, b in zip(start, p, strict=True)]
        terms = (((a + pull * b) * c).sum() for a, b, c in zip(g, p, before, strict=True))
        numbers = _bet(state, sum(terms, start=torch.zeros_like(length)), eps, s_init)
        later = numbers[-1].sum()
        updates = [a - later * (b - c) - d for a, b, c, d in zip(start, before, u, p, strict=True)]
        kept = restore([leaf.clone() for leaf in start], state.start)
        return restore(updates), MechanicState(state.step + 1, inner, kept, *numbers)

    return Optimizer(init, update, extra=base_optimizer.extra)


def _bet(state: MechanicState, won: Tensor, eps: Number, s_init: Number) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return reward, bound, variance and scale after a round whose gain is ⟨g, −Δ⟩."""
    rounds = state.scale.numel()
    betas = 1 - 0.1 ** torch.arange(1, rounds + 1, dtype=won.dtype, device=won.device)
    clipped = torch.minimum(torch.maximum(won, -state.bound), state.bound)
    bound = torch.maximum(betas * state.bound, won.abs() + eps)
    variance = betas.square() * state.variance + won.square()
    reward = betas * state.reward + clipped * state.scale
    wealth = s_init / rounds * bound + reward.clamp(min=0)
    return reward, bound, variance, wealth / (safe_sqrt(variance) + eps)


def _norm(leaves: list[Tensor], like: Tensor) -> Tensor:
    return safe_sqrt(sum((leaf.square().sum() for leaf in leaves), start=torch.zeros_like(like)))

"""Mechanic (Cutkosky, Defazio and Mehta 2023, arXiv:2306.00144, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active_leaves,
    check_count,
    check_nonnegative,
    check_optimizer,
    check_scalar_or_schedule,
    copy_params,
    evaluate_schedule,
    init_scalar,
    init_step_count,
    safe_sqrt,
)


class MechanicState(NamedTuple):
    """State of `mechanize`. Numbers have an entry for each beta: float64, shape (num_betas,)."""

    step: Step  # float64, shape ()
    inner: Any  # state of the base optimizer
    start: Params  # the initial parameters
    reward: Tensor
    bound: Tensor  # decaying maximum of the absolute gain
    variance: Tensor
    scale: Tensor  # the sum of its entries is s


def mechanize(
    base_optimizer: Optimizer[Any],
    *,
    weight_decay: ScalarOrSchedule = 1e-2,
    eps: Number = 1e-8,
    s_init: Number = 1e-6,
    num_betas: int = 6,
) -> Optimizer[MechanicState]:
    """Tune the learning rate of a base optimizer: p = p₀ + s Δ, where Δ is the sum of its updates.

    s is a sum over `num_betas` values β = 1 − 0.1ⁱ. Each term is wealth / (√variance + eps), from a bet with decay β
    whose gain at each step is ⟨g + weight_decay s ‖g‖ p / ‖p‖, −Δ⟩. Give the base optimizer a learning rate of 1, or
    a schedule with a peak of 1.

    Raises:
        ValueError: a number is negative, or `num_betas` is not a whole number, at least 1.

    >>> from torchpure import optim
    >>> opt, params = mechanize(optim.sgd(1.0)), torch.tensor([1.0])
    >>> bool(opt.step(torch.tensor([2.0]), opt.init(params), params)[0] < 1)
    True
    """
    check_optimizer("mechanize", base_optimizer)
    check_nonnegative("mechanize", eps=eps, s_init=s_init)
    check_scalar_or_schedule("mechanize", weight_decay, "weight_decay")
    check_count("mechanize", num_betas=num_betas)

    def init(params: Params) -> MechanicState:
        r, m, v, s = (init_scalar(number, params).repeat(num_betas) for number in (0.0, 0.0, 0.0, s_init))
        return MechanicState(init_step_count(params), base_optimizer.init(params), copy_params(params), r, m, v, s)

    def update(grads: Grads, state: MechanicState, params: Params, **extra: Any) -> tuple[Updates, MechanicState]:
        decay = evaluate_schedule(weight_decay, state.step)
        base_updates, inner = base_optimizer.update(grads, state.inner, params, **extra)
        (u, g, start, p), rebuild = active_leaves("mechanize", base_updates, (grads, state.start), params)
        length = state.scale.sum()
        decay_factor = decay * length * _norm(g, length) / (_norm(p, length) + eps)
        offset = [(a - b) / (length + eps) for a, b in zip(start, p, strict=True)]
        terms = (((a + decay_factor * b) * c).sum() for a, b, c in zip(g, p, offset, strict=True))
        numbers = _bet(state, sum(terms, start=torch.zeros_like(length)), eps, s_init)
        new_length = numbers[-1].sum()
        updates = [a - new_length * (b - c) - d for a, b, c, d in zip(start, offset, u, p, strict=True)]
        start_tree = rebuild([leaf.clone() for leaf in start], state.start)
        return rebuild(updates), MechanicState(state.step + 1, inner, start_tree, *numbers)

    return Optimizer(init, update, extra=base_optimizer.extra)


def _bet(state: MechanicState, gain: Tensor, eps: Number, s_init: Number) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the new reward, bound, variance and scale, given the gain of a step."""
    rounds = state.scale.numel()
    betas = 1 - 0.1 ** torch.arange(1, rounds + 1, dtype=gain.dtype, device=gain.device)
    clipped = torch.minimum(torch.maximum(gain, -state.bound), state.bound)
    bound = torch.maximum(betas * state.bound, gain.abs() + eps)
    variance = betas.square() * state.variance + gain.square()
    reward = betas * state.reward + clipped * state.scale
    wealth = s_init / rounds * bound + reward.clamp(min=0)
    return reward, bound, variance, wealth / (safe_sqrt(variance) + eps)


def _norm(leaves: list[Tensor], like: Tensor) -> Tensor:
    return safe_sqrt(sum((leaf.square().sum() for leaf in leaves), start=torch.zeros_like(like)))

"""Sophia (Liu, Li, Hall, Liang and Ma 2023, arXiv:2305.14342, algorithm 3)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import random
from torchpure._types import Grads, Key, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    active_leaves,
    bias_correction,
    check_count,
    check_given,
    check_nonnegative,
    check_unit_interval,
    ema_update,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    recompute_if,
    scalar_like,
    whole,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate
from torchpure.transforms.derivatives import grad

Leaves = list[Tensor]
HessianDiagonal = Callable[[Key, Callable[[Leaves], Tensor], Leaves], Leaves]


class SophiaState(NamedTuple):
    """State of `scale_by_sophia`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    curvature: Params  # running mean of the estimates of the Hessian's diagonal


def hutchinson(key: Key, objective: Callable[[Leaves], Tensor], leaves: Leaves) -> Leaves:
    """Estimate the diagonal of a Hessian H as z ⊙ H z, with random signs z (Hutchinson 1989).

    The estimate is exact if H is diagonal.

    >>> hutchinson(random.key(0), lambda leaves: leaves[0].pow(3).sum(), [torch.tensor([1.0, 2.0])])
    [tensor([ 6., 12.])]
    """
    coins = [random.bernoulli(random.fold_in(key, i), 0.5, leaf.shape) for i, leaf in enumerate(leaves)]
    signs = [torch.where(coin, 1, -1).to(leaf) for coin, leaf in zip(coins, leaves, strict=True)]

    def directional_derivative(leaves: Leaves) -> Tensor:
        return sum(((g * sign).sum() for g, sign in zip(grad(objective)(leaves), signs, strict=True)), start=zero)

    # reverse over reverse: torch cannot nest forward-mode derivatives, and the caller may use them
    zero = leaves[0].new_zeros(()) if leaves else torch.zeros(())
    products = grad(directional_derivative)(leaves) if leaves else []
    return [sign * product for sign, product in zip(signs, products, strict=True)]


@hint_torch_keywords
def scale_by_sophia(
    *,
    key: Key,
    b1: Number = 0.965,
    b2: Number = 0.99,
    eps: Number = 1e-8,
    gamma: Number = 0.01,
    clip_threshold: Number | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: HessianDiagonal = hutchinson,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[SophiaState]:
    """Divide the mean gradient by a running mean h of the Hessian's diagonal: u = clip(m̂ / max(gamma h, eps)).

    A step needs `value_fn=`, the loss as a function of the parameters. h ← b2 h + (1 − b2) diag at the end of every
    `update_interval`-th step, beginning with the first one. `hessian_diagonal_fn(key, objective, leaves)` estimates the
    diagonal for a list of real leaves. Each estimate has its own key. u is clipped to ±`clip_threshold`.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), another number is negative, or a count is not a whole number.

    >>> sophia, params = scale_by_sophia(key=random.key(0)), torch.tensor([2.0])
    >>> sophia.update(torch.tensor([2.0]), sophia.init(params), params, value_fn=lambda p: p.square().sum())[0]
    tensor([1.])
    """
    check_unit_interval("scale_by_sophia", b1=b1, b2=b2)
    check_nonnegative("scale_by_sophia", eps=eps, gamma=gamma)
    check_count("scale_by_sophia", update_interval=update_interval)

    def init(params: Params) -> SophiaState:
        return SophiaState(
            init_step_count(params),
            init_moments(params, mu_dtype or accumulator_dtype),
            init_moments(params, accumulator_dtype),
        )

    def update(grads: Grads, state: SophiaState, params: Params, *, value_fn: Any) -> tuple[Updates, SophiaState]:
        check_given("scale_by_sophia", params)
        (g, m, h, p), rebuild = active_leaves("scale_by_sophia", grads, (state.mean, state.curvature), params)
        step = state.step + 1
        m = [ema_update(old, new, b1) for old, new in zip(m, g, strict=True)]
        u = [
            _clip(a / bias_correction(b1, step) / _at_least(gamma * b, eps), clip_threshold)
            for a, b in zip(m, h, strict=True)
        ]

        def update_curvature() -> Leaves:
            step_key = random.fold_in(key, state.step.to(torch.int64))
            leaves = [whole(leaf) for leaf in p]  # torch has no second derivatives of DTensors that are laid out anew
            diagonal = hessian_diagonal_fn(step_key, lambda leaves: value_fn(rebuild(leaves, params)), leaves)
            return [ema_update(old, new, b2) for old, new in zip(h, diagonal, strict=True)]

        h = recompute_if(state.step % update_interval == 0, update_curvature, h)
        return rebuild(u), SophiaState(step, rebuild(m, state.mean), rebuild(h, state.curvature))

    return Optimizer(init, update, extra=("value_fn",))


def _at_least(leaf: Tensor, least: Number) -> Tensor:
    return torch.maximum(leaf, scalar_like(least, like=leaf))


def _clip(leaf: Tensor, threshold: Number | None) -> Tensor:
    if threshold is None:
        return leaf
    limit = scalar_like(threshold, like=leaf)
    return torch.minimum(torch.maximum(leaf, -limit), limit)


@hint_torch_keywords
def sophia(
    learning_rate: ScalarOrSchedule,
    *,
    key: Key,
    b1: Number = 0.965,
    b2: Number = 0.99,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask = None,
    gamma: Number = 0.01,
    clip_threshold: Number | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: HessianDiagonal = hutchinson,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with Sophia: p ← p − learning_rate (clip(m̂ / max(gamma h, eps)) + weight_decay p).

    h is that of `scale_by_sophia`. A step needs `value_fn=`, the loss as a function of the parameters.

    Raises:
        ValueError: a number is out of its range.

    >>> opt, params = sophia(0.1, key=random.key(0), weight_decay=0.0), torch.tensor([2.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params, value_fn=lambda p: p.square().sum())[0]
    tensor([1.9000])
    """
    scaled = scale_by_sophia(
        key=key,
        b1=b1,
        b2=b2,
        eps=eps,
        gamma=gamma,
        clip_threshold=clip_threshold,
        update_interval=update_interval,
        hessian_diagonal_fn=hessian_diagonal_fn,
        mu_dtype=mu_dtype,
        accumulator_dtype=accumulator_dtype,
    )
    decayed = add_decayed_weights(weight_decay, mask=weight_decay_mask)
    return chain(scaled, decayed, scale_by_learning_rate(learning_rate))

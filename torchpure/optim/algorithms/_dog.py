"""DoG (Ivgi, Hinder and Carmon 2023, arXiv:2302.12022) and DoWG (Khaled, Mishchenko and Jin 2023, arXiv:2305.16284)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    active_leaves,
    check_given,
    check_nonnegative,
    copy_params,
    hint_torch_keywords,
    init_scalar,
    init_step_count,
    safe_sqrt,
    zero_grads,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

_INIT_STEPS = ("distance", "heuristic", "learning_rate")


class DogState(NamedTuple):
    """State of `scale_by_dog` and `scale_by_dowg`."""

    step: Step  # float64, shape ()
    start: Params  # the initial parameters
    distance: Tensor  # largest distance from them, squared in DoWG; float64, shape ()
    total: Tensor  # sum of the squared norms of the gradients, weighted in DoWG; float64, shape ()


@hint_torch_keywords
def scale_by_dog(*, init_step: tuple[str, Number] = ("heuristic", 1e-6), eps: Number = 1e-8) -> Optimizer[DogState]:
    """Scale gradients by distance over gradient: u = g max ‖pₛ − p₀‖ / √(Σ ‖gₛ‖² + eps).

    `init_step` sets the first step: with ("distance", d) the distance starts at d, with ("heuristic", c) it starts at
    c (1 + ‖p₀‖), and with ("learning_rate", r) the first u is r g.

    Raises:
        ValueError: `init_step` is none of these, or `eps` is negative.

    >>> dog, params = scale_by_dog(init_step=("distance", 2.0)), torch.tensor([1.0])
    >>> dog.update(torch.tensor([4.0]), dog.init(params), params)[0]
    tensor([2.])
    """
    kind, first = init_step
    if kind not in _INIT_STEPS:
        raise ValueError(f"scale_by_dog: init_step must begin with one of {', '.join(_INIT_STEPS)}, got {kind!r}")
    check_nonnegative("scale_by_dog", eps=eps)

    def init(params: Params) -> DogState:
        distance = (
            first * (1 + _params_norm(params)) if kind == "heuristic" else 0.0 if kind == "learning_rate" else first
        )
        return DogState(
            init_step_count(params),
            copy_params(params),
            init_scalar(distance, params),
            init_scalar(0.0, params),
        )

    def update(grads: Grads, state: DogState, params: Params) -> tuple[Updates, DogState]:
        check_given("scale_by_dog", params)
        (g, start, p), rebuild = active_leaves("scale_by_dog", grads, (state.start,), params)
        distance = torch.maximum(state.distance, safe_sqrt(_sum_of_squares(tree.sub(p, start))))
        total = state.total + _sum_of_squares(g)
        learning_rate = distance / safe_sqrt(total + eps)
        if kind == "learning_rate":
            learning_rate = torch.where(state.step == 0, first, learning_rate)
        start_tree = rebuild([leaf.clone() for leaf in start], state.start)
        return rebuild(tree.scale(g, learning_rate)), DogState(state.step + 1, start_tree, distance, total)

    return Optimizer(init, update)


@hint_torch_keywords
def scale_by_dowg(*, init_estim_sq_dist: Number | None = None, eps: Number = 1e-4) -> Optimizer[DogState]:
    """Scale gradients by squared distance over weighted gradients: u = g d / (√(Σ dₛ ‖gₛ‖²) + eps).

    d = max ‖pₛ − p₀‖². It starts at `init_estim_sq_dist`, by default eps.

    Raises:
        ValueError: `eps` is negative.

    >>> dowg, params = scale_by_dowg(init_estim_sq_dist=4.0, eps=0.0), torch.tensor([1.0])
    >>> dowg.update(torch.tensor([4.0]), dowg.init(params), params)[0]
    tensor([2.])
    """
    check_nonnegative("scale_by_dowg", eps=eps)

    def init(params: Params) -> DogState:
        distance = eps if init_estim_sq_dist is None else init_estim_sq_dist
        return DogState(
            init_step_count(params),
            copy_params(params),
            init_scalar(distance, params),
            init_scalar(0.0, params),
        )

    def update(grads: Grads, state: DogState, params: Params) -> tuple[Updates, DogState]:
        check_given("scale_by_dowg", params)
        (g, start, p), rebuild = active_leaves("scale_by_dowg", grads, (state.start,), params)
        distance = torch.maximum(state.distance, _sum_of_squares(tree.sub(p, start)))
        total = state.total + distance * _sum_of_squares(g)
        start_tree = rebuild([leaf.clone() for leaf in start], state.start)
        learning_rate = distance / (safe_sqrt(total) + eps)
        return rebuild(tree.scale(g, learning_rate)), DogState(state.step + 1, start_tree, distance, total)

    return Optimizer(init, update)


@hint_torch_keywords
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    init_step: tuple[str, Number] = ("heuristic", 1e-6),
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with DoG: p ← p − learning_rate u, with u of `scale_by_dog`.

    weight_decay · p is added to the gradient.

    Raises:
        ValueError: `init_step` is none of those of `scale_by_dog`, or a number is negative.

    >>> opt, params = dog(init_step=("distance", 2.0)), torch.tensor([1.0])
    >>> opt.step(torch.tensor([4.0]), opt.init(params), params)[0]
    tensor([-1.])
    """
    scaled = scale_by_dog(init_step=init_step, eps=eps)
    return chain(add_decayed_weights(weight_decay, mask=mask), scaled, scale_by_learning_rate(learning_rate))


@hint_torch_keywords
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    init_estim_sq_dist: Number | None = None,
    eps: Number = 1e-4,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with DoWG: p ← p − learning_rate u, with u of `scale_by_dowg`.

    weight_decay · p is added to the gradient.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = dowg(init_estim_sq_dist=4.0, eps=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([4.0]), opt.init(params), params)[0]
    tensor([-1.])
    """
    scaled = scale_by_dowg(init_estim_sq_dist=init_estim_sq_dist, eps=eps)
    return chain(add_decayed_weights(weight_decay, mask=mask), scaled, scale_by_learning_rate(learning_rate))


def _sum_of_squares(leaves: list[Tensor]) -> Tensor:
    """Return the sum of the squares of all entries, float64."""
    total = torch.zeros((), dtype=torch.float64, device=leaves[0].device if leaves else None)
    for leaf in leaves:
        total = total + leaf.square().sum()
    return total


def _params_norm(params: Params) -> Tensor:
    _, leaves = active_leaves("scale_by_dog", zero_grads(params), (), params)[0]
    return safe_sqrt(_sum_of_squares(leaves))

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
    active,
    check_positive,
    copies,
    count,
    moments,
    safe_sqrt,
    scalar,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

_WAYS = ("distance", "heuristic", "learning_rate")


class DogState(NamedTuple):
    """State of `scale_by_dog` and `scale_by_dowg`."""

    step: Step  # float64, shape ()
    start: Params  # the first parameters
    distance: Tensor  # the largest distance from them, squared in DoWG; float64, shape ()
    total: Tensor  # sum of the squared norms of the gradients, weighted in DoWG; float64, shape ()


def scale_by_dog(*, init_step: tuple[str, Number] = ("heuristic", 1e-6), eps: Number = 1e-8) -> Optimizer[DogState]:
    """Step by the distance over the root of the summed squares: u = g max ‖pₛ − p₀‖ / √(Σ ‖gₛ‖² + eps).

    The first step is by `init_step`: ("distance", d) takes d for the distance, ("heuristic", c) takes c (1 + ‖p₀‖), and
    ("learning_rate", r) steps r g.

    Raises:
        ValueError: `init_step` is none of these, or `eps` negative.

    >>> dog, params = scale_by_dog(init_step=("distance", 2.0)), torch.tensor([1.0])
    >>> dog.update(torch.tensor([4.0]), dog.init(params), params)[0]
    tensor([2.])
    """
    way, first = init_step
    if way not in _WAYS:
        raise ValueError(f"scale_by_dog: init_step must begin with one of {', '.join(_WAYS)}, got {way!r}")
    check_positive("scale_by_dog", eps=eps)

    def init(params: Params) -> DogState:
        begin = first * (1 + _norm_of(params)) if way == "heuristic" else 0.0 if way == "learning_rate" else first
        return DogState(count(params), copies(params), scalar(begin, params), scalar(0.0, params))

    def update(grads: Grads, state: DogState, params: Params) -> tuple[Updates, DogState]:
        (g, start, p), restore = active("scale_by_dog", grads, (state.start,), params)
        distance = torch.maximum(state.distance, safe_sqrt(_squares(tree.sub(p, start))))
        total = state.total + _squares(g)
        learning_rate = distance / safe_sqrt(total + eps)
        if way == "learning_rate":
            learning_rate = torch.where(state.step == 0, first, learning_rate)
        kept = restore([leaf.clone() for leaf in start], state.start)
        return restore(tree.scale(g, learning_rate)), DogState(state.step + 1, kept, distance, total)

    return Optimizer(init, update)


def scale_by_dowg(*, init_estim_sq_dist: Number | None = None, eps: Number = 1e-4) -> Optimizer[DogState]:
    """Step by the squared distance over the root of the weighted squares: u = g d / (√(Σ dₛ ‖gₛ‖²) + eps).

    d = max ‖pₛ − p₀‖² begins at `init_estim_sq_dist`, by default eps.

    Raises:
        ValueError: `eps` is negative.

    >>> dowg, params = scale_by_dowg(init_estim_sq_dist=4.0, eps=0.0), torch.tensor([1.0])
    >>> dowg.update(torch.tensor([4.0]), dowg.init(params), params)[0]
    tensor([2.])
    """
    check_positive("scale_by_dowg", eps=eps)

    def init(params: Params) -> DogState:
        begin = eps if init_estim_sq_dist is None else init_estim_sq_dist
        return DogState(count(params), copies(params), scalar(begin, params), scalar(0.0, params))

    def update(grads: Grads, state: DogState, params: Params) -> tuple[Updates, DogState]:
        (g, start, p), restore = active("scale_by_dowg", grads, (state.start,), params)
        distance = torch.maximum(state.distance, _squares(tree.sub(p, start)))
        total = state.total + distance * _squares(g)
        kept = restore([leaf.clone() for leaf in start], state.start)
        learning_rate = distance / (safe_sqrt(total) + eps)
        return restore(tree.scale(g, learning_rate)), DogState(state.step + 1, kept, distance, total)

    return Optimizer(init, update)


def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    init_step: tuple[str, Number] = ("heuristic", 1e-6),
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_dog` says, times −learning_rate; weight_decay · p is added to the gradient.

    Raises:
        ValueError: `init_step` is none of its ways, or a number negative.

    >>> opt, params = dog(init_step=("distance", 2.0)), torch.tensor([1.0])
    >>> opt.step(torch.tensor([4.0]), opt.init(params), params)[0]
    tensor([-1.])
    """
    scaled = scale_by_dog(init_step=init_step, eps=eps)
    return chain(add_decayed_weights(weight_decay, mask=mask), scaled, scale_by_learning_rate(learning_rate))


def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    init_estim_sq_dist: Number | None = None,
    eps: Number = 1e-4,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_dowg` says, times −learning_rate; weight_decay · p is added to the gradient.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = dowg(init_estim_sq_dist=4.0, eps=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([4.0]), opt.init(params), params)[0]
    tensor([-1.])
    """
    scaled = scale_by_dowg(init_estim_sq_dist=init_estim_sq_dist, eps=eps)
    return chain(add_decayed_weights(weight_decay, mask=mask), scaled, scale_by_learning_rate(learning_rate))


def _squares(leaves: list[Tensor]) -> Tensor:
    """Sum the squares of all entries, float64."""
    total = torch.zeros((), dtype=torch.float64, device=leaves[0].device if leaves else None)
    for leaf in leaves:
        total = total + leaf.square().sum()
    return total


def _norm_of(params: Params) -> Tensor:
    _, leaves = active("scale_by_dog", moments(params), (), params)[0]
    return safe_sqrt(_squares(leaves))

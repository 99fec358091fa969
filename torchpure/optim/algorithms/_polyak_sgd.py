"""Gradient descent with Polyak step sizes (Polyak 1964; Loizou et al. 2021, arXiv:2002.10542, equation 5)."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    EmptyState,
    Number,
    Optimizer,
    active_leaves,
    check_nonnegative,
    hint_torch_keywords,
    scalar_like,
)
from torchpure.optim.transformations import scale_by_learning_rate

_SMALL = 2.0**-52


@hint_torch_keywords
def scale_by_polyak(
    *, f_min: Number = 0.0, max_learning_rate: Number = 1.0, eps: Number = 0.0, variant: str = "sps"
) -> Optimizer[EmptyState]:
    """Scale gradients by a Polyak step size: u = g min((value − f_min) / (‖g‖² + eps), max_learning_rate).

    A step needs `value=`, the loss. With the variant "sps+", u is 0 where the value is below `f_min`.

    Raises:
        ValueError: `variant` is not "sps" or "sps+", or a number is negative.

    >>> polyak, params = scale_by_polyak(), torch.tensor([1.0])
    >>> polyak.update(torch.tensor([2.0]), polyak.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    if variant not in ("sps", "sps+"):
        raise ValueError(f"scale_by_polyak: variant must be sps or sps+, got {variant!r}")
    check_nonnegative("scale_by_polyak", max_learning_rate=max_learning_rate, eps=eps)

    def update(grads: Grads, state: EmptyState, params: Params, *, value: Tensor) -> tuple[Updates, EmptyState]:
        (g, _), rebuild = active_leaves("scale_by_polyak", grads, (), params)
        squares = sum((leaf.square().sum() for leaf in g), start=torch.zeros_like(value)) + eps
        excess = value - f_min
        excess = excess.clamp(min=0) if variant == "sps+" else excess
        is_nonzero = squares > _SMALL
        step = torch.minimum(excess / torch.where(is_nonzero, squares, 1), scalar_like(max_learning_rate, like=squares))
        return rebuild(tree.scale(g, torch.where(is_nonzero, step, 0))), state

    return Optimizer(lambda params: EmptyState(), update, extra=("value",))


def polyak_sgd(
    max_learning_rate: Number = 1.0,
    *,
    scaling: ScalarOrSchedule = 1.0,
    f_min: Number = 0.0,
    eps: Number = 0.0,
    variant: str = "sps",
) -> Optimizer[tuple[Any, ...]]:
    """Step with a Polyak step size: p ← p − u, with u of `scale_by_polyak` for the gradient scaling · g.

    A step needs `value=`, the loss.

    Raises:
        ValueError: `variant` is not "sps" or "sps+", or a number is negative.

    >>> opt, params = polyak_sgd(), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    scaled = scale_by_polyak(f_min=f_min, max_learning_rate=max_learning_rate, eps=eps, variant=variant)
    return chain(scale_by_learning_rate(scaling), scaled)

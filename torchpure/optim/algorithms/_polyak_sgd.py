"""Gradient descent with Polyak's step (Polyak 1964; Loizou et al. 2021, arXiv:2002.10542, equation 5)."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import EmptyState, Number, Optimizer, active, check_positive, number
from torchpure.optim.transformations import scale_by_learning_rate

_SMALL = 2.0**-52


def scale_by_polyak(
    *, f_min: Number = 0.0, max_learning_rate: Number = 1.0, eps: Number = 0.0, variant: str = "sps"
) -> Optimizer[EmptyState]:
    """Scale gradients by min((value − f_min) / (‖g‖² + eps), max_learning_rate); a step needs `value=`, the loss.

    With the variant "sps+" a value below `f_min` gives 0.

    Raises:
        ValueError: the variant is neither, or a number negative.

    >>> polyak, params = scale_by_polyak(), torch.tensor([1.0])
    >>> polyak.update(torch.tensor([2.0]), polyak.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    if variant not in ("sps", "sps+"):
        raise ValueError(f"scale_by_polyak: the variant must be sps or sps+, got {variant!r}")
    check_positive("scale_by_polyak", max_learning_rate=max_learning_rate, eps=eps)

    def update(grads: Grads, state: EmptyState, params: Params, *, value: Tensor) -> tuple[Updates, EmptyState]:
        (g, _), restore = active("scale_by_polyak", grads, (), params)
        squares = sum((leaf.square().sum() for leaf in g), start=torch.zeros_like(value)) + eps
        gap = value - f_min
        gap = gap.clamp(min=0) if variant == "sps+" else gap
        some = squares > _SMALL
        step = torch.minimum(gap / torch.where(some, squares, 1), number(max_learning_rate, like=squares))
        return restore(tree.scale(g, torch.where(some, step, 0))), state

    return Optimizer(lambda params: EmptyState(), update, extra=("value",))


def polyak_sgd(
    max_learning_rate: Number = 1.0,
    *,
    scaling: ScalarOrSchedule = 1.0,
    f_min: Number = 0.0,
    eps: Number = 0.0,
    variant: str = "sps",
) -> Optimizer[tuple[Any, ...]]:
    """Step against the gradient by Polyak's step, at most `max_learning_rate`, times `scaling`.

    Raises:
        ValueError: the variant is neither sps nor sps+, or a number negative.

    >>> opt, params = polyak_sgd(), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    scaled = scale_by_polyak(f_min=f_min, max_learning_rate=max_learning_rate, eps=eps, variant=variant)
    return chain(scale_by_learning_rate(scaling), scaled)

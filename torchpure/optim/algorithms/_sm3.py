"""SM3 (Anil, Gupta, Koren and Singer 2019, arXiv:1901.11150, algorithm SM3-II)."""

from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Tree, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    by_real_parts,
    check_nonnegative,
    check_unit_interval,
    hint_torch_keywords,
    init_moments,
    init_per_leaf,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate


class Sm3State(NamedTuple):
    """State of `scale_by_sm3`."""

    cover: Tree  # μᵢ: for each leaf and each dimension, an upper bound of the summed squares along it
    mean: Params  # running mean of the updates


@hint_torch_keywords
def scale_by_sm3(
    *, b1: Number = 0.9, b2: Number = 1.0, eps: Number = 1e-8, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[Sm3State]:
    """Divide gradients by the root of an upper bound of their summed squares: u = b1 u₋₁ + (1 − b1) g / √(ν + eps).

    ν = c g² + b2 minᵢ μᵢ, where c is 1 − b2, or 1 if b2 is 1. The state has a bound μᵢ for each row and each column
    instead of each entry: μᵢ ← max ν.

    Raises:
        ValueError: `b1` is not in [0, 1), or `b2` or `eps` negative.

    >>> sm3, params = scale_by_sm3(b1=0.0), torch.ones(2, 2)
    >>> sm3.update(torch.full((2, 2), 3.0), sm3.init(params), params)[0]
    tensor([[1., 1.],
            [1., 1.]])
    """
    check_unit_interval("scale_by_sm3", b1=b1)
    check_nonnegative("scale_by_sm3", b2=b2, eps=eps)
    share = torch.where(b2 == 1, 1, 1 - b2) if isinstance(b2, Tensor) else 1.0 if b2 == 1 else 1.0 - b2

    def rule(g: Tensor, cover: tuple[Tensor, ...], m: Tensor, p: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        bound = share * g.square() + b2 * reduce(torch.minimum, cover)
        scaled = torch.where(bound > 0, g / safe_sqrt(torch.where(bound > 0, bound, 1) + eps), 0)
        m = b1 * m + (1 - b1) * scaled
        return m, tuple(_max_along(bound, dim) for dim in range(max(g.ndim, 1))), m

    def update(grads: Grads, state: Sm3State, params: Params) -> tuple[Updates, Sm3State]:
        updates, cover, mean = leafwise("scale_by_sm3", rule, grads, tuple(state), params)
        return updates, Sm3State(cover, mean)

    def init(params: Params) -> Sm3State:
        cover = init_per_leaf(
            lambda p: tuple(_max_along(torch.zeros_like(p), dim) for dim in range(max(p.ndim, 1))),
            params,
            accumulator_dtype,
        )
        return Sm3State(cover, init_moments(params, accumulator_dtype))

    return by_real_parts(init, update)


def _max_along(bound: Tensor, dim: int) -> Tensor:
    """Return the maximum over all other dimensions, which stay with size 1."""
    rest = tuple(other for other in range(bound.ndim) if other != dim)
    return bound.amax(rest, keepdim=True) if rest and bound.numel() else bound.clone()


@hint_torch_keywords
def sm3(
    learning_rate: ScalarOrSchedule, *, momentum: Number = 0.9, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[tuple[Any, ...]]:
    """Step with SM3: p ← p − learning_rate u, with u of `scale_by_sm3`.

    Raises:
        ValueError: `learning_rate` is negative, or `momentum` not in [0, 1).

    >>> opt, params = sm3(0.1, momentum=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([3.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(scale_by_sm3(b1=momentum, accumulator_dtype=accumulator_dtype), scale_by_learning_rate(learning_rate))

"""Transformations that keep parameters nonnegative and updates free of NaN."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Tree, Updates
from torchpure.optim.core import EmptyState, Optimizer, init_per_leaf, leafwise, stateless_leafwise


def keep_params_nonnegative() -> Optimizer[EmptyState]:
    """Keep parameters at least 0: u = −p where p + u would be negative. Use it as the last part of a chain.

    >>> keep_params_nonnegative().update(torch.tensor([-3.0, -1.0]), EmptyState(), torch.tensor([2.0, 2.0]))[0]
    tensor([-2., -1.])
    """
    return stateless_leafwise("keep_params_nonnegative", lambda u, p: torch.where(p + u < 0, -p, u))


class ZeroNansState(NamedTuple):
    """State of `zero_nans`."""

    found_nan: Tree  # for each leaf, whether the last gradient had a NaN: bool, shape ()


def zero_nans() -> Optimizer[ZeroNansState]:
    """Replace NaN with 0. The state records, for each leaf, whether there was a NaN.

    >>> zero = zero_nans()
    >>> zero.update(torch.tensor([float("nan"), 1.0]), zero.init(torch.zeros(2)), torch.zeros(2))
    (tensor([0., 1.]), ZeroNansState(found_nan=tensor(True)))
    """

    def init(params: Params) -> ZeroNansState:
        return ZeroNansState(init_per_leaf(lambda p: torch.zeros((), dtype=torch.bool, device=p.device), params))

    def rule(g: Tensor, found: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(g.isnan(), 0, g), g.isnan().any()

    def update(grads: Grads, state: ZeroNansState, params: Params) -> tuple[Updates, ZeroNansState]:
        updates, found = leafwise("zero_nans", rule, grads, (state.found_nan,), params, scalars=1)
        return updates, ZeroNansState(found)

    return Optimizer(init, update)

"""Adagrad's scaling (Duchi, Hazan and Singer 2011, JMLR 12, equation 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import GradientTransformation
from torchpure.optim.core import safe_sqrt

from ._leafwise import Formula, make_transformation
from .utils import flattened, moment

__all__ = ["scale_by_rss"]


class ScaleByRssState(NamedTuple):
    """State of `scale_by_rss`."""

    sum_of_squares: Any  # of the gradients


@flattened
def scale_by_rss(initial_accumulator_value: float = 0.0, eps: float = 1e-10) -> GradientTransformation:
    """Return g / (√s + eps) with s ← s + g², and 0 where s is 0. Its derivatives are finite there."""

    def init(params: Any) -> ScaleByRssState:
        fill = pytree.tree_map(lambda p: torch.full_like(p, initial_accumulator_value), params)
        return ScaleByRssState(sum_of_squares=fill)

    def leaf(grad: Tensor, param: Any, total: Tensor) -> tuple[Tensor, Tensor]:
        total = moment(grad, total, 1.0, 2)
        positive = total > 0.0
        divisor = torch.where(positive, safe_sqrt(total) + eps, 1.0)
        return torch.where(positive, grad / divisor, 0.0), total

    return make_transformation(init, Formula(lambda state: leaf, ("sum_of_squares",), writes=True))

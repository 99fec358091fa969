"""Multiplication of updates by a schedule."""

from typing import Any, NamedTuple

from torch import Tensor

from torchpure.compat.torchopt.base import GradientTransformation
from torchpure.compat.torchopt.typing import Schedule

from ._leafwise import Formula, make_transformation
from .utils import flattened, init_counts, next_count

__all__ = ["scale_by_schedule"]


class ScaleByScheduleState(NamedTuple):
    """State of `scale_by_schedule`."""

    count: Any  # steps of each leaf, int64, shape ()


@flattened
def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation:
    """Multiply updates by `step_size_fn(count)`; the first count is 0.

    >>> import torch
    >>> halved = scale_by_schedule(lambda count: 0.5**count)
    >>> updates, state = halved.update((torch.tensor(2.0),), halved.init((torch.tensor(0.0),)), inplace=False)
    >>> halved.update(updates, state, inplace=False)[0]
    (tensor(1.),)
    """

    def leaf(grad: Tensor, param: Any, count: Tensor) -> tuple[Tensor, Tensor]:
        return grad.mul(step_size_fn(count)), next_count(count)

    return make_transformation(
        lambda params: ScaleByScheduleState(count=init_counts(params)),
        Formula(lambda state: leaf, ("count",), writes=True, constant=False),
    )

"""Keep the best parameters of a run."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Params
from torchpure.optim.core import init_scalar, select

from ._callback import Callback, copied
from ._metrics import Metric, mean_loss, measure
from ._progress import Progress


class BestState(NamedTuple):
    """State of `best_so_far`."""

    value: Tensor  # the smallest metric; float64, shape ()
    step: Tensor  # at which it was reported; 0: no report yet; int64, shape ()
    params: Params


def best_so_far(metric: Metric = mean_loss) -> Callback[BestState]:
    """Keep the parameters of the report whose metric is smallest. NaN is never the best.

    `metric(progress)` is a number, such as the loss on other data: `lambda progress: loss(progress.params, *held_out)`.
    By default it is the mean loss since the last report; each loss is that before the step's update.

    >>> import torch, torchpure as tp
    >>> result = tp.fit(lambda p, x: (p - x) ** 2, [(torch.tensor(1.0),)], params=torch.tensor(0.0), every=1,
    ...                 optimizer=tp.optim.sgd(0.25), steps=5, callback=best_so_far(lambda one: abs(one.params - 0.8)))
    >>> result.callback_state.step, result.callback_state.params
    (tensor(2), tensor(0.7500))
    """

    def init(params: Params) -> BestState:
        value, step = init_scalar(float("inf"), params), init_scalar(0, params, torch.int64)
        return BestState(value, step, copied(params))

    def update(state: BestState, progress: Progress) -> tuple[BestState, bool]:
        value = measure(metric, progress, state.value)
        new = BestState(value, torch.full_like(state.step, progress.step), progress.params)
        return select(value < state.value, new, state), False

    return Callback(init, update)

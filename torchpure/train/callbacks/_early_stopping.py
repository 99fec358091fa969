"""End a run that no longer improves."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure._types import Params
from torchpure.optim.core import check_count, check_nonnegative, init_scalar

from ._callback import Callback
from ._metrics import Metric, mean_loss, measure
from ._progress import Progress


class EarlyStoppingState(NamedTuple):
    """State of `early_stopping`; every field has shape ()."""

    best: Tensor  # the smallest metric; float64
    waited: Tensor  # number of reports in a row that were not better; int64


def early_stopping(
    patience: int, min_delta: float = 0.0, *, metric: Metric = mean_loss
) -> Callback[EarlyStoppingState]:
    """End a run after `patience` reports in a row whose metric is not below the best by more than `min_delta`.

    `metric(progress)` is to be small; by default it is the mean loss since the last report. NaN is not better.

    Raises:
        ValueError: `patience` is not a whole number of at least 1, or `min_delta` is negative.

    >>> import torch, torchpure as tp
    >>> stop = early_stopping(2, metric=lambda progress: 1.0)
    >>> result = tp.fit(lambda p, x: (p - x) ** 2, [(torch.tensor(1.0),)], params=torch.tensor(0.0), every=1,
    ...                 optimizer=tp.optim.sgd(0.25), steps=9, callback=stop)
    >>> len(result.history), result.callback_state.best.item()
    (3, 1.0)
    """
    check_count("early_stopping", patience=patience)
    check_nonnegative("early_stopping", min_delta=min_delta)

    def init(params: Params) -> EarlyStoppingState:
        return EarlyStoppingState(init_scalar(float("inf"), params), init_scalar(0, params, torch.int64))

    def update(state: EarlyStoppingState, progress: Progress) -> tuple[EarlyStoppingState, Tensor]:
        value = measure(metric, progress, state.best)
        is_better = value < state.best - min_delta
        waited = torch.where(is_better, 0, state.waited + 1)
        return EarlyStoppingState(torch.where(is_better, value, state.best), waited), waited >= patience

    return Callback(init, update)

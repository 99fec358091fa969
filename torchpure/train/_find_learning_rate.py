"""The learning rate range test (Smith 2015, arXiv:1506.01186, section 3.3)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Key, Params, Schedule, Step
from torchpure.optim import Optimizer
from torchpure.optim.core import check_above, check_count, check_unit_interval
from torchpure.tree.summaries import counted, shown

from ._fit import fit

_DIVERGED = 4.0  # times the smallest loss: here the test ends


class LearningRates(NamedTuple):
    """The result of a range test, up to where the loss diverged."""

    rates: Tensor  # float64, shape (rates,)
    losses: Tensor  # smoothed; float64, shape (rates,)
    suggestion: float  # the rate at which the loss falls fastest

    def __repr__(self) -> str:
        lowest = self.losses.argmin()
        return (
            f"LearningRates: {shown(self.suggestion)} suggested; {counted(len(self.rates), 'rate')}, "
            f"{shown(self.rates[0])} to {shown(self.rates[-1])}; "
            f"smallest loss {shown(self.losses[lowest])} at {shown(self.rates[lowest])}"
        )


def find_learning_rate(
    model: Any,
    data: Any,
    *,
    optimizer: Callable[[Schedule], Optimizer[Any]],
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 200,
    smoothing: float = 0.9,
    key: Key | None = None,
    params: Params = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int | None = None,
    jit: bool = True,
) -> LearningRates:
    """Train while the learning rate grows exponentially from `low` to `high`; suggest where the loss falls fastest.

    `optimizer` makes an optimizer from a schedule, such as `tp.optim.adam`; the other arguments are those of `fit`.
    The loss is an exponential moving average with the factor `smoothing`, debiased; the first 1 / (1 − smoothing)
    losses only feed it. The result ends where it has risen to four times its smallest value, or a loss or gradient is
    not finite. From 200 steps on, all are one compiled scan.
    The suggestion is the rate at which the loss falls fastest for the logarithm of the rate.

    Raises:
        ValueError: the bounds, `steps` or `smoothing` do not fit, or the loss falls at no rate.

    >>> import torchpure as tp
    >>> found = find_learning_rate(lambda p, x: ((p - x) ** 2).mean(), torch.ones(4), params=torch.tensor(0.0),
    ...                            optimizer=tp.optim.sgd, steps=40, low=1e-4)
    >>> 0.01 < found.suggestion < 1
    True
    """
    check_above("find_learning_rate", 0, low=low)
    check_above("find_learning_rate", low, high=high)
    check_count("find_learning_rate", steps=steps)
    check_unit_interval("find_learning_rate", smoothing=smoothing)
    growth = math.log(high / low) / max(steps - 1, 1)

    def rate_at(step: Step) -> Tensor:
        return low * torch.exp(step * growth)

    result = fit(
        model, data, optimizer=optimizer(rate_at), steps=steps, key=key, params=params, loss=loss,
        batch_size=batch_size, every=steps, on_nonfinite="freeze", jit=jit,
    )  # fmt: skip
    assert result.divergence is not None
    bad = int(result.divergence.step)
    first = round(1 / (1 - smoothing)) - 1  # averages of fewer losses are noise
    losses = _smoothed(result.history[: bad - 1 if bad else steps].double(), smoothing)[first:]
    rates = rate_at(torch.arange(first, first + len(losses), dtype=torch.float64))
    end = _end_of(losses)
    return LearningRates(rates[:end], losses[:end], _steepest(rates[:end], losses[:end]))


def _smoothed(losses: Tensor, decay: float) -> Tensor:
    """Return the debiased exponential moving average of losses."""
    mean, means = 0.0, []
    for number, value in enumerate(losses.tolist(), 1):
        mean = decay * mean + (1 - decay) * value
        means.append(mean / (1 - decay**number))
    return torch.tensor(means, dtype=torch.float64)


def _end_of(losses: Tensor) -> int:
    """Return the number of losses before the first that exceeds a multiple of the smallest one and comes after it."""
    if not len(losses):
        return 0
    lowest = int(losses.argmin())
    diverged = (losses[lowest:] > _DIVERGED * losses[lowest].abs()).nonzero()
    return lowest + int(diverged[0]) if len(diverged) else len(losses)


def _steepest(rates: Tensor, losses: Tensor) -> float:
    """Return the rate with the smallest slope of the loss for the logarithm of the rate.

    Raises:
        ValueError: the loss falls nowhere.
    """
    slopes = torch.gradient(losses)[0] if len(losses) > 1 else torch.zeros(1)
    if not bool(slopes.min() < 0):
        raise ValueError(
            f"find_learning_rate: the loss falls at none of {counted(len(losses), 'rate')} before it diverges: lower "
            "`low`, or look at the loss"
        )
    return float(rates[int(slopes.argmin())])

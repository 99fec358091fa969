"""Measurements of the updates in a chain, stored in its state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from torchpure import tree
from torchpure._types import Grads, Params, Tree, Updates
from torchpure.optim.core import Number, Optimizer, extra_names, stateless, zero_grads

from ._ema import EmaState, ema

Measure = Callable[[Updates], Tree]


class SnapshotState(NamedTuple):
    """State of `snapshot`."""

    measurement: dict[str, Tree]  # of the last updates; before the first update, of zeros


def snapshot(measure_name: str, measure: Measure) -> Optimizer[SnapshotState]:
    """Store `measure(updates)` in the state under a name, and pass the updates on.

    >>> shot = snapshot("norm", tree.norm)
    >>> shot.update(torch.tensor([3.0, 4.0]), shot.init(torch.zeros(2)), torch.zeros(2))[1].measurement
    {'norm': tensor(5.)}
    """

    def update(grads: Grads, state: SnapshotState, params: Params) -> tuple[Updates, SnapshotState]:
        return grads, SnapshotState({measure_name: measure(grads)})

    return Optimizer(lambda params: SnapshotState({measure_name: measure(zero_grads(params))}), update)


class MonitorState(NamedTuple):
    """State of `monitor`."""

    measurements: dict[str, Tree]  # of the last updates; zeros before the first update
    measure_states: tuple[Any, ...]


def monitor(measures: Mapping[str, Optimizer[Any] | Measure]) -> Optimizer[MonitorState]:
    """Store several measurements in the state by name, and pass the updates on.

    A measure is a function of the updates, or a transformation whose result is stored, such as `measure_with_ema(…)`.

    >>> watch = monitor({"norm": tree.norm})
    >>> watch.update(torch.tensor([3.0, 4.0]), watch.init(torch.zeros(2)), torch.zeros(2))[1].measurements
    {'norm': tensor(5.)}
    """
    measurers = {
        name: measurer if isinstance(measurer, Optimizer) else _to_transformation(measurer)
        for name, measurer in measures.items()
    }

    def read(updates: Updates, states: tuple[Any, ...], params: Params, **extra: Any) -> MonitorState:
        results = {
            name: measurer.update(updates, state, params, **extra)
            for (name, measurer), state in zip(measurers.items(), states, strict=True)
        }
        return MonitorState(
            {name: result[0] for name, result in results.items()}, tuple(r[1] for r in results.values())
        )

    def init(params: Params) -> MonitorState:
        states = tuple(measurer.init(params) for measurer in measurers.values())
        # zeros of the right shapes, so that the state can be the carry of a loop
        placeholders = {name: torch.zeros(()) for name in extra_names(*measurers.values())}
        return MonitorState(
            tree.zeros_like(read(zero_grads(params), states, params, **placeholders).measurements), states
        )

    def update(grads: Grads, state: MonitorState, params: Params, **extra: Any) -> tuple[Updates, MonitorState]:
        return grads, read(grads, state.measure_states, params, **extra)

    return Optimizer(init, update, extra=extra_names(*measurers.values()))


def _to_transformation(measure: Measure) -> Optimizer[Any]:
    return stateless(lambda updates, params: measure(updates))


def measure_with_ema(
    measure: Measure, decay: Number, *, debias: bool = True, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[EmaState]:
    """Make a measure for `monitor`: the running mean of `measure(updates)`.

    Raises:
        ValueError: `decay` is not in [0, 1).

    >>> measure = measure_with_ema(lambda updates: updates.sum(), 0.5)
    >>> measure.update(torch.ones(3), measure.init(torch.zeros(3)), torch.zeros(3))[0]
    tensor(3.)
    """
    average = ema(decay, debias=debias, accumulator_dtype=accumulator_dtype)

    def update(grads: Grads, state: EmaState, params: Params) -> tuple[Tree, EmaState]:
        measured = measure(grads)
        return average.update(measured, state, measured)

    return Optimizer(lambda params: average.init(measure(zero_grads(params))), update)

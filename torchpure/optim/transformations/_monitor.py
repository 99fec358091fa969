"""Measurements of what passes through a chain, kept in its state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from torchpure import tree
from torchpure._types import Grads, Params, Tree, Updates
from torchpure.optim.core import Number, Optimizer, moments, names, stateless

from ._ema import EmaState, ema

Measure = Callable[[Updates], Tree]


class SnapshotState(NamedTuple):
    """State of `snapshot`."""

    measurement: dict[str, Tree]  # of the last updates; of zeros before the first


def snapshot(measure_name: str, measure: Measure) -> Optimizer[SnapshotState]:
    """Keep `measure(updates)` under a name, and pass the updates on.

    >>> shot = snapshot("norm", tree.norm)
    >>> shot.update(torch.tensor([3.0, 4.0]), shot.init(torch.zeros(2)), torch.zeros(2))[1].measurement
    {'norm': tensor(5.)}
    """

    def update(grads: Grads, state: SnapshotState, params: Params) -> tuple[Updates, SnapshotState]:
        return grads, SnapshotState({measure_name: measure(grads)})

    return Optimizer(lambda params: SnapshotState({measure_name: measure(moments(params))}), update)


class MonitorState(NamedTuple):
    """State of `monitor`."""

    measurements: dict[str, Tree]  # of the last updates; zeros before the first
    measure_states: tuple[Any, ...]


def monitor(measures: Mapping[str, Optimizer[Any] | Measure]) -> Optimizer[MonitorState]:
    """Keep several measurements, by name, and pass the updates on.

    A measure is a function of the updates, or a transformation whose result is kept, as `measure_with_ema` makes.

    >>> watch = monitor({"norm": tree.norm})
    >>> watch.update(torch.tensor([3.0, 4.0]), watch.init(torch.zeros(2)), torch.zeros(2))[1].measurements
    {'norm': tensor(5.)}
    """
    gauges = {name: gauge if isinstance(gauge, Optimizer) else _as_gauge(gauge) for name, gauge in measures.items()}

    def read(updates: Updates, states: tuple[Any, ...], params: Params, **extra: Any) -> MonitorState:
        results = {
            name: gauge.update(updates, state, params, **extra)
            for (name, gauge), state in zip(gauges.items(), states, strict=True)
        }
        return MonitorState(
            {name: result[0] for name, result in results.items()}, tuple(r[1] for r in results.values())
        )

    def init(params: Params) -> MonitorState:
        states = tuple(gauge.init(params) for gauge in gauges.values())
        # zeros of the right shapes, so that the state is a loop's carry from the first step on
        absent = {name: torch.zeros(()) for name in names(*gauges.values())}
        return MonitorState(tree.zeros_like(read(moments(params), states, params, **absent).measurements), states)

    def update(grads: Grads, state: MonitorState, params: Params, **extra: Any) -> tuple[Updates, MonitorState]:
        return grads, read(grads, state.measure_states, params, **extra)

    return Optimizer(init, update, extra=names(*gauges.values()))


def _as_gauge(measure: Measure) -> Optimizer[Any]:
    return stateless(lambda updates, params: measure(updates))


def measure_with_ema(
    measure: Measure, decay: Number, *, debias: bool = True, accumulator_dtype: torch.dtype | None = None
) -> Optimizer[EmaState]:
    """Make a measure for `monitor`: the running mean of `measure(updates)`.

    Raises:
        ValueError: `decay` is not in [0, 1).
    """
    average = ema(decay, debias=debias, accumulator_dtype=accumulator_dtype)

    def update(grads: Grads, state: EmaState, params: Params) -> tuple[Tree, EmaState]:
        measured = measure(grads)
        return average.update(measured, state, measured)

    return Optimizer(lambda params: average.init(measure(moments(params))), update)

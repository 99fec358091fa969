"""Schedules in pieces between given steps, and the one-cycle policy (Smith and Topin 2018, arXiv:1708.07120)."""

from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from torchpure._types import Schedule
from torchpure.optim.core import Number

from ._basic import check_steps, float64, half_cosine

Scales = Mapping[int, Number]
Shape = Callable[[Tensor], Tensor]  # from 1 at 0 to 0 at 1
_SHAPES: dict[str, Shape] = {"linear": lambda fraction: 1 - fraction, "cosine": half_cosine}


def piecewise_constant_schedule(init_value: Number, boundaries_and_scales: Scales | None = None) -> Schedule:
    """Multiply the learning rate at each boundary by its scale, and keep it in between.

    Raises:
        ValueError: a scale is negative.

    >>> piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1})(torch.tensor([9.0, 10.0, 20.0]))
    tensor([1.0000, 0.5000, 0.0500], dtype=torch.float64)
    """
    pieces = _sorted("piecewise_constant_schedule", boundaries_and_scales)

    def value(step: Tensor) -> Tensor:
        result = torch.ones_like(step) * init_value
        for boundary, factor in pieces:
            result = torch.where(step < boundary, result, result * factor)
        return result

    return float64(value)


def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Number, boundaries_and_scales: Scales | None = None
) -> Schedule:
    """Go from boundary to boundary along a line or half a cosine; at each, the value has been multiplied by its scale.

    Raises:
        ValueError: `interpolate_type` is not "linear" or "cosine", or a scale is negative.

    >>> piecewise_interpolate_schedule("linear", 1.0, {10: 0.5, 20: 0.0})(torch.tensor([5.0, 10.0, 15.0]))
    tensor([0.7500, 0.5000, 0.2500], dtype=torch.float64)
    """
    shape = _shape("piecewise_interpolate_schedule", interpolate_type)
    pieces = _sorted("piecewise_interpolate_schedule", boundaries_and_scales)
    values = list(accumulate((scale for _, scale in pieces), lambda a, b: a * b, initial=init_value))
    return _through([0, *(boundary for boundary, _ in pieces)], values, shape)


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Number,
    *,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Rise in a line to `peak_value`, fall back in a line, and end far below.

    From peak / div_factor, up at pct_start, back at pct_final, to peak / div_factor / final_div_factor.

    Raises:
        ValueError: `transition_steps` is not positive.

    >>> linear_onecycle_schedule(10, 1.0)(torch.tensor([0.0, 3.0]))
    tensor([0.0400, 1.0000], dtype=torch.float64)
    """
    check_steps("linear_onecycle_schedule", transition_steps=transition_steps)
    turns = {
        int(pct_start * transition_steps): div_factor,
        int(pct_final * transition_steps): 1.0 / div_factor,
        transition_steps: 1.0 / final_div_factor,
    }
    return piecewise_interpolate_schedule("linear", peak_value / div_factor, turns)


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Number,
    *,
    pct_start: float = 0.3,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Rise along half a cosine to `peak_value`, and fall along another: optax's count; torch's is `one_cycle_schedule`.

    From peak / div_factor, up at pct_start, to peak / div_factor / final_div_factor.

    Raises:
        ValueError: `transition_steps` is not positive.

    >>> cosine_onecycle_schedule(10, 1.0)(torch.tensor([0.0, 3.0]))
    tensor([0.0400, 1.0000], dtype=torch.float64)
    """
    check_steps("cosine_onecycle_schedule", transition_steps=transition_steps)
    turns = {int(pct_start * transition_steps): div_factor, transition_steps: 1.0 / (div_factor * final_div_factor)}
    return piecewise_interpolate_schedule("cosine", peak_value / div_factor, turns)


def one_cycle_schedule(
    peak_value: Number,
    total_steps: int,
    *,
    pct_start: float = 0.3,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
    three_phase: bool = False,
    interpolate_type: str = "cosine",
) -> Schedule:
    """Follow torch's OneCycleLR: its last value comes at step total_steps − 1, and stays.

    From peak / div_factor up to peak at step pct_start · total_steps − 1, then to peak / div_factor / final_div_factor;
    with `three_phase` first back to the start, in as many steps as the rise took.

    Raises:
        ValueError: `total_steps` is not positive, `pct_start` not in [0, 1], or `interpolate_type` not known.

    >>> one_cycle_schedule(1.0, 10)(torch.tensor([0.0, 2.0]))
    tensor([0.0400, 1.0000], dtype=torch.float64)
    """
    check_steps("one_cycle_schedule", total_steps=total_steps)
    if not 0 <= pct_start <= 1:
        raise ValueError(f"one_cycle_schedule: pct_start must be in [0, 1], got {pct_start}")
    first, last = peak_value / div_factor, peak_value / div_factor / final_div_factor
    top = pct_start * total_steps - 1
    bounds, values = [0, top, total_steps - 1], [first, peak_value, last]
    if three_phase:
        bounds, values = [0, top, 2 * top, total_steps - 1], [first, peak_value, first, last]
    return _through(bounds, values, _shape("one_cycle_schedule", interpolate_type))


def _through(bounds: list[float], values: list[Number], shape: Shape) -> Schedule:
    """Go through given values at given steps, and keep the last."""

    def value(step: Tensor) -> Tensor:
        result = torch.ones_like(step) * values[-1]
        for (begin, end), (start, goal) in reversed(list(zip(pairwise(bounds), pairwise(values), strict=True))):
            fraction = ((step - begin) / (end - begin if end > begin else 1)).clamp(0, 1)
            result = torch.where(step < end, goal + (start - goal) * shape(fraction), result)
        return result

    return float64(value)


def _shape(who: str, name: str) -> Shape:
    if name not in _SHAPES:
        raise ValueError(f"{who}: interpolate_type must be one of {list(_SHAPES)}, got {name!r}")
    return _SHAPES[name]


def _sorted(who: str, scales: Scales | None) -> list[tuple[int, Number]]:
    pieces = sorted((scales or {}).items(), key=lambda piece: piece[0])
    for boundary, factor in pieces:
        if not isinstance(factor, Tensor) and factor < 0:
            raise ValueError(f"{who}: scales must be at least 0, got {factor} at {boundary}")
    return pieces

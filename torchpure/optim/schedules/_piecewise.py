"""Piecewise schedules, and the one-cycle policy (Smith and Topin 2018, arXiv:1708.07120)."""

from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from torchpure._types import Schedule
from torchpure.optim.core import Number

from ._basic import check_positive_steps, float64_schedule, half_cosine

Scales = Mapping[int, Number]
Curve = Callable[[Tensor], Tensor]  # falls from 1 at 0 to 0 at 1
_CURVES: dict[str, Curve] = {"linear": lambda fraction: 1 - fraction, "cosine": half_cosine}


def piecewise_constant_schedule(init_value: Number, boundaries_and_scales: Scales | None = None) -> Schedule:
    """Multiply the learning rate by a scale at each boundary; it is constant between boundaries.

    Raises:
        ValueError: a scale is negative.

    >>> piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1})(torch.tensor([9.0, 10.0, 20.0]))
    tensor([1.0000, 0.5000, 0.0500], dtype=torch.float64)
    """
    pieces = _sorted_scales("piecewise_constant_schedule", boundaries_and_scales)

    def value(step: Tensor) -> Tensor:
        result = torch.ones_like(step) * init_value
        for boundary, factor in pieces:
            result = torch.where(step < boundary, result, result * factor)
        return result

    return float64_schedule(value)


def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Number, boundaries_and_scales: Scales | None = None
) -> Schedule:
    """Interpolate between boundaries, along a line or half a cosine.

    At each boundary the value is the one at the boundary before, times the scale.

    Raises:
        ValueError: `interpolate_type` is not "linear" or "cosine", or a scale is negative.

    >>> piecewise_interpolate_schedule("linear", 1.0, {10: 0.5, 20: 0.0})(torch.tensor([5.0, 10.0, 15.0]))
    tensor([0.7500, 0.5000, 0.2500], dtype=torch.float64)
    """
    curve = _curve("piecewise_interpolate_schedule", interpolate_type)
    pieces = _sorted_scales("piecewise_interpolate_schedule", boundaries_and_scales)
    values = list(accumulate((scale for _, scale in pieces), lambda a, b: a * b, initial=init_value))
    return _interpolate([0, *(boundary for boundary, _ in pieces)], values, curve)


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Number,
    *,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Increase linearly to `peak_value`, decrease linearly to the first value, then to a much smaller one.

    The first value is peak / div_factor, and the last is peak / div_factor / final_div_factor. The peak is at step
    pct_start · transition_steps, and the first value again at step pct_final · transition_steps.

    Raises:
        ValueError: `transition_steps` is not positive.

    >>> linear_onecycle_schedule(10, 1.0)(torch.tensor([0.0, 3.0]))
    tensor([0.0400, 1.0000], dtype=torch.float64)
    """
    check_positive_steps("linear_onecycle_schedule", transition_steps=transition_steps)
    boundaries_and_scales = {
        int(pct_start * transition_steps): div_factor,
        int(pct_final * transition_steps): 1.0 / div_factor,
        transition_steps: 1.0 / final_div_factor,
    }
    return piecewise_interpolate_schedule("linear", peak_value / div_factor, boundaries_and_scales)


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Number,
    *,
    pct_start: float = 0.3,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Increase along half a cosine to `peak_value`, then decrease along another one, as in optax.

    The first value is peak / div_factor, and the last is peak / div_factor / final_div_factor. The peak is at step
    pct_start · transition_steps. For torch's step counts, use `one_cycle_schedule`.

    Raises:
        ValueError: `transition_steps` is not positive.

    >>> cosine_onecycle_schedule(10, 1.0)(torch.tensor([0.0, 3.0]))
    tensor([0.0400, 1.0000], dtype=torch.float64)
    """
    check_positive_steps("cosine_onecycle_schedule", transition_steps=transition_steps)
    boundaries_and_scales = {
        int(pct_start * transition_steps): div_factor,
        transition_steps: 1.0 / (div_factor * final_div_factor),
    }
    return piecewise_interpolate_schedule("cosine", peak_value / div_factor, boundaries_and_scales)


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
    """Increase to `peak_value`, then decrease, like torch's OneCycleLR.

    The first value is peak / div_factor. The peak is at step pct_start · total_steps − 1. The last value is
    peak / div_factor / final_div_factor, from step total_steps − 1 on. With `three_phase` the value first decreases to
    the first value, in as many steps as the increase took.

    Raises:
        ValueError: `total_steps` is not positive, `pct_start` not in [0, 1], or `interpolate_type` unknown.

    >>> one_cycle_schedule(1.0, 10)(torch.tensor([0.0, 2.0]))
    tensor([0.0400, 1.0000], dtype=torch.float64)
    """
    check_positive_steps("one_cycle_schedule", total_steps=total_steps)
    if not 0 <= pct_start <= 1:
        raise ValueError(f"one_cycle_schedule: pct_start must be in [0, 1], got {pct_start}")
    first, last = peak_value / div_factor, peak_value / div_factor / final_div_factor
    top = pct_start * total_steps - 1
    bounds, values = [0, top, total_steps - 1], [first, peak_value, last]
    if three_phase:
        bounds, values = [0, top, 2 * top, total_steps - 1], [first, peak_value, first, last]
    return _interpolate(bounds, values, _curve("one_cycle_schedule", interpolate_type))


def _interpolate(bounds: list[float], values: list[Number], curve: Curve) -> Schedule:
    """Interpolate between given values at given steps. After the last step the value is constant."""

    def value(step: Tensor) -> Tensor:
        result = torch.ones_like(step) * values[-1]
        for (begin, end), (start, target) in reversed(list(zip(pairwise(bounds), pairwise(values), strict=True))):
            fraction = ((step - begin) / (end - begin if end > begin else 1)).clamp(0, 1)
            result = torch.where(step < end, target + (start - target) * curve(fraction), result)
        return result

    return float64_schedule(value)


def _curve(caller: str, name: str) -> Curve:
    if name not in _CURVES:
        raise ValueError(f"{caller}: interpolate_type must be one of {list(_CURVES)}, got {name!r}")
    return _CURVES[name]


def _sorted_scales(caller: str, scales: Scales | None) -> list[tuple[int, Number]]:
    pieces = sorted((scales or {}).items(), key=lambda piece: piece[0])
    for boundary, factor in pieces:
        if not isinstance(factor, Tensor) and factor < 0:
            raise ValueError(f"{caller}: scales must be at least 0, got {factor} at {boundary}")
    return pieces

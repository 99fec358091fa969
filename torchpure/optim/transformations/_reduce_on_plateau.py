"""Smaller steps when the value stops to improve, as torch's ReduceLROnPlateau, but inside the update."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Number, Optimizer, check_count, check_positive, scalar, select


class ReduceOnPlateauState(NamedTuple):
    """State of `reduce_on_plateau`; every field has shape ()."""

    scale: Tensor  # what updates are multiplied by; float64
    best_value: Tensor  # float64
    plateau_count: Tensor  # how many averages in a row were not better; int64
    cooldown_count: Tensor  # int64
    count: Tensor  # how many values the average has; int64
    avg_value: Tensor  # float64


def reduce_on_plateau(
    factor: Number = 0.1,
    *,
    patience: int = 10,
    rtol: Number = 1e-4,
    atol: Number = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: Number = 0.0,
) -> Optimizer[ReduceOnPlateauState]:
    """Multiply updates by a scale, which falls by `factor` when `value` was not better `patience` times in a row.

    Better is below (1 − rtol) best − atol. Values are averaged over `accumulation_size` updates; for `cooldown`
    averages after a fall none counts. Call `step(grads, state, params, value=loss)`.

    Raises:
        ValueError: `factor` is not in (0, 1), `rtol` not in [0, 1], both tolerances are 0, or a number is negative.

    >>> plateau, params = reduce_on_plateau(0.5, patience=1), torch.zeros(1)
    >>> _, state = plateau.update(params, plateau.init(params), params, value=torch.tensor(1.0))
    >>> plateau.update(torch.ones(1), state, params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    _check(factor, rtol, atol, min_scale)
    check_count("reduce_on_plateau", patience=patience, accumulation_size=accumulation_size)
    check_positive("reduce_on_plateau", cooldown=cooldown)

    def judged(state: ReduceOnPlateauState) -> ReduceOnPlateauState:
        better = state.avg_value < (1 - rtol) * state.best_value - atol
        waited = torch.where(better, 0, state.plateau_count + 1)
        cooling, falls = state.cooldown_count > 0, waited == patience
        lower = torch.clamp(torch.where(falls, state.scale * factor, state.scale), min=min_scale)
        return state._replace(
            scale=torch.where(cooling, state.scale, lower),
            best_value=torch.where(better, state.avg_value, state.best_value),
            plateau_count=torch.where(cooling | falls, 0, waited),
            cooldown_count=torch.where(cooling, state.cooldown_count - 1, torch.where(falls, cooldown, 0)),
            count=torch.zeros_like(state.count),
            avg_value=torch.zeros_like(state.avg_value),
        )

    def update(
        grads: Grads, state: ReduceOnPlateauState, params: Params, *, value: Any
    ) -> tuple[Updates, ReduceOnPlateauState]:
        number = state.count + 1
        average = (state.count * state.avg_value + value) / number
        state = state._replace(count=number, avg_value=average.to(state.avg_value.dtype))
        state = select(number == accumulation_size, judged(state), state)
        return tree.scale(grads, state.scale), state

    return Optimizer(_start, update, extra=("value",))


def _start(params: Params) -> ReduceOnPlateauState:
    return ReduceOnPlateauState(
        scale=scalar(1.0, params),
        best_value=scalar(float("inf"), params),
        plateau_count=scalar(0, params, torch.int64),
        cooldown_count=scalar(0, params, torch.int64),
        count=scalar(0, params, torch.int64),
        avg_value=scalar(0.0, params),
    )


def _check(factor: Number, rtol: Number, atol: Number, min_scale: Number) -> None:
    check_positive("reduce_on_plateau", rtol=rtol, atol=atol, min_scale=min_scale)
    if not isinstance(factor, Tensor) and not 0 < factor < 1:
        raise ValueError(f"reduce_on_plateau: factor must be in (0, 1), got {factor}")
    if isinstance(rtol, Tensor) or isinstance(atol, Tensor):
        return
    if rtol > 1 or rtol == atol == 0:
        raise ValueError(f"reduce_on_plateau: rtol must be at most 1, and rtol or atol positive, got {rtol} and {atol}")

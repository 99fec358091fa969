"""Smaller updates when the loss stops improving, like torch's ReduceLROnPlateau."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Number, Optimizer, check_count, check_nonnegative, init_scalar, select


class ReduceOnPlateauState(NamedTuple):
    """State of `reduce_on_plateau`; every field has shape ()."""

    scale: Tensor  # factor of the updates; float64
    best_value: Tensor  # float64
    plateau_count: Tensor  # number of averages in a row that were not better; int64
    cooldown_count: Tensor  # number of averages left in the cooldown; int64
    count: Tensor  # number of values in the average; int64
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
    """Multiply updates by a scale; multiply the scale by `factor` when the loss stops improving.

    Call `step(grads, state, params, value=loss)`. Losses are averaged over `accumulation_size` updates. An average is
    better if it is below best − rtol |best| − atol. After `patience` averages in a row that are not better, the scale
    is reduced. The next `cooldown` averages do not count.

    Raises:
        ValueError: `factor` is not in (0, 1), `rtol` not in [0, 1], both tolerances are 0, or a number is negative.

    >>> plateau, params = reduce_on_plateau(0.5, patience=1), torch.zeros(1)
    >>> _, state = plateau.update(params, plateau.init(params), params, value=torch.tensor(1.0))
    >>> plateau.update(torch.ones(1), state, params, value=torch.tensor(1.0))[0]
    tensor([0.5000])
    """
    _check(factor, rtol, atol, min_scale)
    check_count("reduce_on_plateau", patience=patience, accumulation_size=accumulation_size)
    check_nonnegative("reduce_on_plateau", cooldown=cooldown)

    def evaluate_average(state: ReduceOnPlateauState) -> ReduceOnPlateauState:
        bound = (1 - rtol * state.best_value.sign()) * state.best_value - atol  # best − rtol |best| − atol
        better = state.avg_value < bound
        num_bad = torch.where(better, 0, state.plateau_count + 1)
        in_cooldown, reduces = state.cooldown_count > 0, num_bad == patience
        reduced = torch.clamp(torch.where(reduces, state.scale * factor, state.scale), min=min_scale)
        return state._replace(
            scale=torch.where(in_cooldown, state.scale, reduced),
            best_value=torch.where(better, state.avg_value, state.best_value),
            plateau_count=torch.where(in_cooldown | reduces, 0, num_bad),
            cooldown_count=torch.where(in_cooldown, state.cooldown_count - 1, torch.where(reduces, cooldown, 0)),
            count=torch.zeros_like(state.count),
            avg_value=torch.zeros_like(state.avg_value),
        )

    def update(
        grads: Grads, state: ReduceOnPlateauState, params: Params, *, value: Any
    ) -> tuple[Updates, ReduceOnPlateauState]:
        number = state.count + 1
        average = (state.count * state.avg_value + value) / number
        state = state._replace(count=number, avg_value=average.to(state.avg_value.dtype))
        state = select(number == accumulation_size, evaluate_average(state), state)
        return tree.scale(grads, state.scale), state

    return Optimizer(_start, update, extra=("value",))


def _start(params: Params) -> ReduceOnPlateauState:
    return ReduceOnPlateauState(
        scale=init_scalar(1.0, params),
        best_value=init_scalar(float("inf"), params),
        plateau_count=init_scalar(0, params, torch.int64),
        cooldown_count=init_scalar(0, params, torch.int64),
        count=init_scalar(0, params, torch.int64),
        avg_value=init_scalar(0.0, params),
    )


def _check(factor: Number, rtol: Number, atol: Number, min_scale: Number) -> None:
    check_nonnegative("reduce_on_plateau", rtol=rtol, atol=atol, min_scale=min_scale)
    if not isinstance(factor, Tensor) and not 0 < factor < 1:
        raise ValueError(f"reduce_on_plateau: factor must be in (0, 1), got {factor}")
    if isinstance(rtol, Tensor) or isinstance(atol, Tensor):
        return
    if rtol > 1 or rtol == atol == 0:
        raise ValueError(f"reduce_on_plateau: rtol must be at most 1, and rtol or atol positive, got {rtol} and {atol}")

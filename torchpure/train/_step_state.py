"""What a step carries beside the state of the optimizer: what the guard counted, and what observers saw."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Params
from torchpure.optim.core import init_scalar


class GuardState(NamedTuple):
    """What is known of steps that were not finite; every field has shape ()."""

    number: Tensor  # of steps made; int64
    first: Tensor  # the first bad step, from 1; 0: none; int64
    position: Tensor  # of its first bad leaf, from 1; 0: the loss; int64
    count: Tensor  # of bad steps; int64
    scale: Tensor  # of updates; float64


class StepState(NamedTuple):
    """The state of the optimizer with what is carried beside it. A run that needs neither carries no StepState."""

    opt_state: Any
    guard: GuardState | None
    observed: Any  # the state of the observer; None


def start_guard(params: Params) -> GuardState:
    """Return the state of a guard before the first step."""
    number, first, position, count = (init_scalar(0, params, torch.int64) for _ in range(4))
    return GuardState(number, first, position, count, init_scalar(1.0, params))


def split_step_state(held: Any) -> StepState:
    """Return the parts of what a run carries in the place of the state of the optimizer."""
    return held if isinstance(held, StepState) else StepState(held, None, None)

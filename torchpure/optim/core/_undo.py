"""Steps backwards: the parameters and the state before a step, from those after it (Maclaurin et al. 2015).

A rule of this kind exists where the updates follow from the new state alone, and the state is linear in the gradients.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule

from ._checks import is_zero
from ._formulas import Number, bias_correction, evaluate_schedule, safe_sqrt

Undo = Callable[[Callable[[Params], Grads], Any, Params], tuple[Params, Any]]


def undo_sgd(learning_rate: ScalarOrSchedule, momentum: Number) -> Undo:
    """Undo p ← p − learning_rate b, then b ← momentum b + g."""

    def undo(grad: Callable[[Params], Grads], state: Any, params: Params) -> tuple[Params, Any]:
        step = state.step - 1
        before = _moved(params, tree.scale(state.momentum, evaluate_schedule(learning_rate, step)))
        sums = tree.map(lambda b, g: (b - g.to(b.dtype)) / tree.cast(momentum, b), state.momentum, grad(before))
        return before, state._replace(step=step, momentum=sums)

    return undo


def undo_adam(
    learning_rate: ScalarOrSchedule, b1: Number, b2: Number, eps: Number, weight_decay: ScalarOrSchedule = 0.0
) -> Undo | None:
    """Undo p ← p − learning_rate (m̂ / (√v̂ + eps) + weight_decay p), then those of m and v.

    None if b1 or b2 is 0: a mean that forgets everything before cannot be undone.
    """
    if is_zero(b1) or is_zero(b2):
        return None

    def undo(grad: Callable[[Params], Grads], state: Any, params: Params) -> tuple[Params, Any]:
        step = state.step - 1
        rate, decay = evaluate_schedule(learning_rate, step), evaluate_schedule(weight_decay, step)
        corrections = bias_correction(b1, state.step), bias_correction(b2, state.step)

        def move(m: Tensor, v: Tensor) -> Tensor:
            first, second = (tree.cast(correction, m) for correction in corrections)
            return tree.cast(rate, m) * (m / first) / (safe_sqrt(v / second) + tree.cast(eps, v))

        moved = _moved(params, tree.map(move, state.mean, state.square))
        before = tree.map(lambda p: p / (1 - tree.cast(rate, p) * tree.cast(decay, p)), moved)
        grads = grad(before)
        mean = tree.map(lambda m, g: _unmixed(m, g, b1), state.mean, grads)
        # rounding can make a mean square negative, where it was near 0
        square = tree.map(lambda v, g: _unmixed(v, g.square(), b2).clamp(min=0), state.square, grads)
        return before, state._replace(step=step, mean=mean, square=square)

    return undo


def _moved(params: Params, moves: Params) -> Params:
    return tree.map(lambda p, move: p + move.to(p.dtype), params, moves)


def _unmixed(average: Tensor, value: Tensor, weight: Number) -> Tensor:
    """Return the average before `value` joined it."""
    kept = tree.cast(weight, average)
    return (average - (1 - kept) * value.to(average.dtype)) / kept

"""Backtracking line search (Armijo 1966, "Minimization of functions having Lipschitz continuous first derivatives")."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active,
    check_count,
    check_positive,
    check_unit,
    moments,
    number,
    scalar,
)

from ._line import dot, line, or_infinite, repeat, scaled


class BacktrackingState(NamedTuple):
    """State of `scale_by_backtracking_linesearch`. Numbers are float64, of shape ()."""

    learning_rate: Tensor  # the step taken
    value: Tensor  # of the function there; infinite before the first step
    grad: Params | None  # there, with `store_grad`
    num_linesearch_steps: Step
    decrease_error: Tensor  # how far the decrease is from sufficient


def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    *,
    slope_rtol: Number = 1e-4,
    decrease_factor: Number = 0.8,
    increase_factor: Number = 1.5,
    max_learning_rate: Number = 1.0,
    atol: Number = 0.0,
    rtol: Number = 0.0,
    store_grad: bool = False,
) -> Optimizer[BacktrackingState]:
    """Shorten updates until the value falls enough: f(p + t u) ≤ (1 + rtol) f(p) + slope_rtol t ⟨g, u⟩ + atol.

    A step needs `value=` and `grad=`, of the parameters, and `value_fn=`, the function. t begins at `increase_factor`
    times the last, at most `max_learning_rate`, and is 0 where the function is not finite at every step tried. With
    `store_grad` the state has the gradient of the point reached: see `value_and_grad_from_state`.

    Raises:
        ValueError: a number is out of its range.

    >>> from torchpure import optim
    >>> opt, params = optim.chain(optim.sgd(1.0), scale_by_backtracking_linesearch(15)), torch.tensor([1.0])
    >>> f = lambda p: 2 * p.square().sum()
    >>> g = torch.tensor([4.0])
    >>> opt.step(g, opt.init(params), params, value=f(params), grad=g, value_fn=f)[0]
    tensor([-0.6384])
    """
    check_count("scale_by_backtracking_linesearch", max_backtracking_steps=max_backtracking_steps)
    check_unit("scale_by_backtracking_linesearch", decrease_factor=decrease_factor)
    numbers = {"slope_rtol": slope_rtol, "increase_factor": increase_factor, "max_learning_rate": max_learning_rate}
    check_positive("scale_by_backtracking_linesearch", **numbers, atol=atol, rtol=rtol)

    def init(params: Params) -> BacktrackingState:
        one, unknown, steps, error = (scalar(x, params) for x in (1.0, float("inf"), 0.0, float("inf")))
        return BacktrackingState(one, unknown, moments(params) if store_grad else None, steps, error)

    def update(
        grads: Grads, state: BacktrackingState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, BacktrackingState]:
        (u, g, p), restore = active("scale_by_backtracking_linesearch", grads, (grad,), params)
        along, one = line(value_fn, restore, params, u, p), state.learning_rate
        slope, value = dot(g, u, one), value.to(one)

        def tried(t: Tensor, rounds: Tensor) -> tuple[Tensor, ...]:
            reached = along.value(t)
            return t, reached, or_infinite(reached - (1 + rtol) * value - t * slope_rtol * slope), rounds + 1

        start = torch.minimum(increase_factor * one, number(max_learning_rate, like=one))
        found = tried(start, torch.zeros_like(one))
        found = repeat(
            lambda now: ~(now[2] <= atol),
            lambda now: tried(decrease_factor * now[0], now[3]),
            found,
            max_backtracking_steps,
        )
        t, reached, error, rounds = found
        t, reached = torch.where(error.isinf(), 0, t), torch.where(error.isinf(), value, reached)
        new = restore(along.at(t).grad, state.grad) if store_grad else None
        return restore(scaled(t, u)), BacktrackingState(t, reached, new, rounds, error)

    return Optimizer(init, update, extra=("value", "grad", "value_fn"))

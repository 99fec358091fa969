"""Backtracking line search (Armijo 1966, "Minimization of functions having Lipschitz continuous first derivatives")."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Step, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active_leaves,
    check_count,
    check_nonnegative,
    check_unit_interval,
    init_scalar,
    scalar_like,
    zero_grads,
)

from ._line import bounded_while, dot, error_at, make_line, scale_direction


class BacktrackingState(NamedTuple):
    """State of `scale_by_backtracking_linesearch`. Numbers are float64, of shape ()."""

    learning_rate: Tensor  # the step size taken
    value: Tensor  # of the function at the new parameters; infinite before the first step
    grad: Params | None  # gradient at the new parameters, with `store_grad`
    num_linesearch_steps: Step
    decrease_error: Tensor  # by how much the value exceeds the bound of sufficient decrease


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
    """Shorten updates until the value falls enough: f(p + t u) ≤ f(p) + rtol |f(p)| + slope_rtol t ⟨g, u⟩ + atol.

    A step needs `value=` and `grad=` at the parameters, and `value_fn=`, the function of the parameters. The first t is
    `increase_factor` times the last one, at most `max_learning_rate`. Each round multiplies t by `decrease_factor`.
    If the function is not finite at the last t tried, t is 0. With `store_grad` the state has the gradient at the new
    parameters: see `value_and_grad_from_state`.

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
    check_unit_interval("scale_by_backtracking_linesearch", decrease_factor=decrease_factor)
    checked = {"slope_rtol": slope_rtol, "increase_factor": increase_factor, "max_learning_rate": max_learning_rate}
    check_nonnegative("scale_by_backtracking_linesearch", **checked, atol=atol, rtol=rtol)

    def init(params: Params) -> BacktrackingState:
        last, infinite, num_steps, error = (init_scalar(x, params) for x in (1.0, float("inf"), 0.0, float("inf")))
        return BacktrackingState(last, infinite, zero_grads(params) if store_grad else None, num_steps, error)

    def update(
        grads: Grads, state: BacktrackingState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, BacktrackingState]:
        (u, g, p), rebuild = active_leaves("scale_by_backtracking_linesearch", grads, (grad,), params)
        search_line, last = make_line(value_fn, rebuild, params, u, p), state.learning_rate
        slope, value = dot(g, u, last), value.to(last)

        def try_step(t: Tensor, rounds: Tensor) -> tuple[Tensor, ...]:
            new_value = search_line.value(t)
            error = error_at(new_value, new_value - (1 + rtol * value.sign()) * value - t * slope_rtol * slope)
            return t, new_value, error, rounds + 1

        start = torch.minimum(increase_factor * last, scalar_like(max_learning_rate, like=last))
        search_state = try_step(start, torch.zeros_like(last))
        search_state = bounded_while(
            lambda search: ~(search[2] <= atol),
            lambda search: try_step(decrease_factor * search[0], search[3]),
            search_state,
            max_backtracking_steps,
        )
        t, new_value, error, rounds = search_state
        t, new_value = torch.where(error.isinf(), 0, t), torch.where(error.isinf(), value, new_value)
        new = rebuild(search_line.at(t).grad, state.grad) if store_grad else None
        return rebuild(scale_direction(t, u)), BacktrackingState(t, new_value, new, rounds, error)

    return Optimizer(init, update, extra=("value", "grad", "value_fn"))

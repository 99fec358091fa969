"""Line search for the strong Wolfe conditions (Nocedal and Wright 2006, "Numerical optimization", algorithms 3.5, 3.6).

Near a minimum, values differ only by rounding. There the decrease is estimated from slopes (Hager and Zhang 2005,
"A new conjugate gradient method with guaranteed descent and an efficient line search", equations 2.3 and 4.3).
"""

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
    init_scalar,
    safe_divide,
    safe_sqrt,
    scalar_like,
    select,
    zero_grads,
)

from ._line import Line, Point, bounded_while, dot, error_at, make_line, scale_direction


class ZoomState(NamedTuple):
    """State of the line searches for the Wolfe conditions. Numbers are float64, of shape ()."""

    learning_rate: Tensor  # the step size taken
    value: Tensor  # of the function at the new parameters; infinite before the first step
    grad: Params  # gradient at the new parameters
    num_linesearch_steps: Step
    decrease_error: Tensor  # by how much the value exceeds the bound of sufficient decrease
    curvature_error: Tensor  # by how much the slope exceeds its bound


class _Ends(NamedTuple):
    low: Point  # the end with the lowest value that decreases enough
    high: Point
    third: Point  # an end of an earlier bracket: three points define a cubic


class _Search(NamedTuple):
    rounds: Tensor
    current: Point  # the last point that was evaluated
    ends: _Ends
    safe: Point  # the best step with sufficient decrease, or step 0
    errors: tuple[Tensor, Tensor]  # of the decrease and of the curvature
    bracketed: Tensor  # whether a good step lies between the ends
    done: Tensor
    failed: Tensor


class _Options(NamedTuple):
    max_steps: int
    max_step: Number | None
    tol: Number
    increase: Number
    slope_rtol: Number
    curv_rtol: Number
    approx_dec_rtol: Number | None
    precision: Number


def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    *,
    max_learning_rate: Number | None = None,
    tol: Number = 0.0,
    increase_factor: Number = 2.0,
    slope_rtol: Number = 1e-4,
    curv_rtol: Number = 0.9,
    approx_dec_rtol: Number | None = 1e-6,
    stepsize_precision: Number = 1e-5,
    initial_guess_strategy: str = "keep",
) -> Optimizer[ZoomState]:
    """Scale updates to a step size that meets the strong Wolfe conditions.

    f(p + t u) ≤ f(p) + slope_rtol t ⟨g, u⟩ and |⟨g(p + t u), u⟩| ≤ curv_rtol |⟨g, u⟩|, both up to `tol`. A step needs
    `value=` and `grad=` at the parameters, and `value_fn=`, the function of the parameters. The first t is 1 (strategy
    "one") or the last t ("keep"). It grows by `increase_factor` until a bracket is found. If no t meets both
    conditions, the best t that meets the first one is taken. The state has the errors.

    Raises:
        ValueError: a number is out of its range, or `initial_guess_strategy` is not "one" or "keep".

    >>> from torchpure import optim
    >>> opt, params = optim.chain(optim.sgd(1.0), scale_by_zoom_linesearch(15)), torch.tensor([1.0])
    >>> f = lambda p: 2 * p.square().sum()
    >>> g = torch.tensor([4.0])
    >>> opt.step(g, opt.init(params), params, value=f(params), grad=g, value_fn=f)[0]
    tensor([0.])
    """
    if initial_guess_strategy not in ("one", "keep"):
        raise ValueError(
            f"scale_by_zoom_linesearch: initial_guess_strategy must be one or keep, got {initial_guess_strategy!r}"
        )
    check_count("scale_by_zoom_linesearch", max_linesearch_steps=max_linesearch_steps)
    check_nonnegative("scale_by_zoom_linesearch", tol=tol, slope_rtol=slope_rtol, curv_rtol=curv_rtol)
    given = (increase_factor, slope_rtol, curv_rtol, approx_dec_rtol, stepsize_precision)
    options = _Options(max_linesearch_steps, max_learning_rate, tol, *given)

    def update(
        grads: Grads, state: ZoomState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, ZoomState]:
        (u, g, p), rebuild = active_leaves("scale_by_zoom_linesearch", grads, (grad,), params)
        last = state.learning_rate
        first = Point(torch.zeros_like(last), value.to(last), dot(g, u, last), g)
        guess = torch.ones_like(last) if initial_guess_strategy == "one" else last
        end = _search(make_line(value_fn, rebuild, params, u, p), first, guess, options)
        new_grad = rebuild([leaf.clone() for leaf in end.current.grad], state.grad)
        return rebuild(scale_direction(end.current.t, u)), ZoomState(
            end.current.t, end.current.value, new_grad, end.rounds, *end.errors
        )

    return Optimizer(init_zoom_state, update, extra=("value", "grad", "value_fn"))


def init_zoom_state(params: Params) -> ZoomState:
    """Make the state of a line search that keeps the value and the gradient at the new parameters."""
    one, infinite, rounds, *errors = (
        init_scalar(x, params) for x in (1.0, float("inf"), 0.0, float("inf"), float("inf"))
    )
    return ZoomState(one, infinite, zero_grads(params), rounds, *errors)


def _search(search_line: Line, first: Point, guess: Tensor, options: _Options) -> _Search:
    no, infinite = torch.zeros_like(first.t, dtype=torch.bool), torch.full_like(first.t, float("inf"))
    ends = _Ends(first, first, first)
    start = _Search(torch.zeros_like(first.t), first, ends, first, (infinite, infinite), no, no, no)

    def body(search: _Search) -> _Search:
        longer = torch.where(search.rounds == 0, guess, options.increase * search.current.t)
        reached = no
        if options.max_step is not None:
            limit = scalar_like(options.max_step, like=longer)
            longer, reached = torch.minimum(longer, limit), longer >= limit
        point = search_line.at(torch.where(search.bracketed, _middle(search.ends), longer))
        errors = _errors(point, first, options)
        return select(
            search.bracketed,
            _shrink_bracket(search, point, errors, options),
            _extend(search, point, errors, reached, options),
        )

    end = bounded_while(lambda search: ~(search.done | search.failed), body, start, options.max_steps)
    use_safe = (end.safe.t > 0) | end.errors[0].isinf()
    return end._replace(current=select(end.failed & use_safe, end.safe, end.current))


def _errors(point: Point, first: Point, options: _Options) -> tuple[Tensor, Tensor]:
    """Return by how much a point violates the decrease condition and the curvature condition."""
    decrease = point.value - first.value - options.slope_rtol * point.t * first.slope
    if options.approx_dec_rtol is not None:
        by_slope = point.slope - (2 * options.slope_rtol - 1) * first.slope
        risen = point.value - first.value - options.approx_dec_rtol * first.value.abs()
        decrease = torch.minimum(torch.maximum(by_slope, risen), decrease)
    curvature = point.slope.abs() - options.curv_rtol * first.slope.abs()
    return error_at(point.value, decrease), error_at(point.value, curvature)


def _extend(
    search: _Search, point: Point, errors: tuple[Tensor, Tensor], reached: Tensor, options: _Options
) -> _Search:
    """Update the search before there is a bracket (algorithm 3.5)."""
    good = torch.maximum(*errors) <= options.tol
    is_high = (errors[0] > 0) | ((point.value >= search.current.value) & (search.rounds > 0))
    is_low = (point.slope >= 0) & ~is_high
    low, high = select(is_low, (point, search.current), (search.current, point))
    bracketed = is_high | is_low | good
    done = good | (reached & ~bracketed)
    safe = select(errors[0] <= options.tol, point, search.safe)
    failed = (search.rounds + 1 >= options.max_steps) & ~done
    return _Search(search.rounds + 1, point, _Ends(low, high, low), safe, errors, bracketed, done, failed)


def _shrink_bracket(search: _Search, point: Point, errors: tuple[Tensor, Tensor], options: _Options) -> _Search:
    """Update the search inside the bracket (algorithm 3.6)."""
    low, high, _ = search.ends
    done = torch.maximum(*errors) <= options.tol
    safe = select((errors[0] <= options.tol) & (point.value < search.safe.value), point, search.safe)
    is_high = (errors[0] > 0) | (point.value >= low.value)
    turned = (point.slope * (high.t - low.t) >= 0) & ~is_high
    ends = _Ends(
        select(is_high, low, point),
        select(is_high, point, select(turned, low, high)),
        select(is_high | turned, high, low),
    )
    short = (high.t - low.t).abs() <= options.precision
    over = (search.rounds + 1 >= options.max_steps) | (short & (safe.t > 0))
    return _Search(search.rounds + 1, point, ends, safe, errors, search.bracketed, done, over & ~done)


def _middle(ends: _Ends) -> Tensor:
    """Return a step well inside the bracket: the minimum of a cubic, else of a parabola, else the middle."""
    low, high, third = ends
    left, right = torch.minimum(low.t, high.t), torch.maximum(low.t, high.t)
    width = right - left
    cubic, valid = _cubic(low, high, third)
    by_cubic = valid & (cubic > left + 0.2 * width) & (cubic < right - 0.2 * width)
    across = high.t - low.t
    bend = safe_divide(high.value - low.value - low.slope * across, across.square())
    parabola = low.t - safe_divide(low.slope, 2 * bend)
    by_parabola = (bend != 0) & (parabola > left + 0.1 * width) & (parabola < right - 0.1 * width)
    return torch.where(by_cubic, cubic, torch.where(by_parabola, parabola, (low.t + high.t) / 2))


def _cubic(low: Point, high: Point, third: Point) -> tuple[Tensor, Tensor]:
    """Return the minimum of a cubic, and whether it exists. The cubic fits three values, and the slope at `low`."""
    b, c = high.t - low.t, third.t - low.t
    over_b, over_c = high.value - low.value - low.slope * b, third.value - low.value - low.slope * c
    under = (b * c).square() * (b - c)
    third_order = safe_divide(c.square() * over_b - b.square() * over_c, under)
    second_order = safe_divide(b.pow(3) * over_c - c.pow(3) * over_b, under)
    radical = second_order.square() - 3 * third_order * low.slope
    at = low.t + safe_divide(safe_sqrt(radical) - second_order, 3 * third_order)
    return at, (radical >= 0) & (third_order != 0)

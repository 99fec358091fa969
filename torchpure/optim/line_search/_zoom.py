"""Line search for the strong Wolfe conditions (Nocedal and Wright 2006, "Numerical optimization", algorithms 3.5, 3.6).

Near a minimum, where values differ by rounding only, the decrease is judged by slopes instead (Hager and Zhang 2005,
"A new conjugate gradient method with guaranteed descent and an efficient line search", equations 2.3 and 4.3).
"""

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
    moments,
    number,
    safe_divide,
    safe_sqrt,
    scalar,
    select,
)

from ._line import Line, Point, dot, line, or_infinite, repeat, scaled


class ZoomState(NamedTuple):
    """State of the line searches for the Wolfe conditions. Numbers are float64, of shape ()."""

    learning_rate: Tensor  # the step taken
    value: Tensor  # of the function there; infinite before the first step
    grad: Params  # there
    num_linesearch_steps: Step
    decrease_error: Tensor  # how far the decrease is from sufficient
    curvature_error: Tensor  # how far the slope is from flat enough


class _Ends(NamedTuple):
    low: Point  # the best end that decreases enough
    high: Point
    third: Point  # an end that was given up: with the two others it has a cubic


class _Search(NamedTuple):
    rounds: Tensor
    now: Point
    ends: _Ends
    safe: Point  # the best step that decreases enough, or 0
    errors: tuple[Tensor, Tensor]  # of the decrease and of the curvature
    found: Tensor  # whether the ends hold a step that is wanted
    done: Tensor
    failed: Tensor


class _Rules(NamedTuple):
    most: int
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
    """Scale updates so that the value falls enough and the slope gets flat enough: the strong Wolfe conditions.

    f(p + t u) ≤ f(p) + slope_rtol t ⟨g, u⟩ and |⟨g(p + t u), u⟩| ≤ curv_rtol |⟨g, u⟩|, both up to `tol`. A step needs
    `value=` and `grad=`, of the parameters, and `value_fn=`, the function. t begins at 1 ("one") or at the last step
    ("keep"), and grows by `increase_factor` until an interval is found. Where no step has both, the best with the first
    is taken; the state tells the errors.

    Raises:
        ValueError: a number is out of its range, or the strategy neither one nor keep.

    >>> from torchpure import optim
    >>> opt, params = optim.chain(optim.sgd(1.0), scale_by_zoom_linesearch(15)), torch.tensor([1.0])
    >>> f = lambda p: 2 * p.square().sum()
    >>> g = torch.tensor([4.0])
    >>> opt.step(g, opt.init(params), params, value=f(params), grad=g, value_fn=f)[0]
    tensor([0.])
    """
    if initial_guess_strategy not in ("one", "keep"):
        raise ValueError(f"scale_by_zoom_linesearch: the strategy must be one or keep, got {initial_guess_strategy!r}")
    check_count("scale_by_zoom_linesearch", max_linesearch_steps=max_linesearch_steps)
    check_positive("scale_by_zoom_linesearch", tol=tol, slope_rtol=slope_rtol, curv_rtol=curv_rtol)
    given = (increase_factor, slope_rtol, curv_rtol, approx_dec_rtol, stepsize_precision)
    rules = _Rules(max_linesearch_steps, max_learning_rate, tol, *given)

    def update(
        grads: Grads, state: ZoomState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, ZoomState]:
        (u, g, p), restore = active("scale_by_zoom_linesearch", grads, (grad,), params)
        last = state.learning_rate
        first = Point(torch.zeros_like(last), value.to(last), dot(g, u, last), g)
        guess = torch.ones_like(last) if initial_guess_strategy == "one" else last
        end = _search(line(value_fn, restore, params, u, p), first, guess, rules)
        kept = restore([leaf.clone() for leaf in end.now.grad], state.grad)
        return restore(scaled(end.now.t, u)), ZoomState(end.now.t, end.now.value, kept, end.rounds, *end.errors)

    return Optimizer(start_state, update, extra=("value", "grad", "value_fn"))


def start_state(params: Params) -> ZoomState:
    """Make the state of a line search that remembers the point it reached."""
    one, unknown, rounds, *errors = (scalar(x, params) for x in (1.0, float("inf"), 0.0, float("inf"), float("inf")))
    return ZoomState(one, unknown, moments(params), rounds, *errors)


def _search(along: Line, first: Point, guess: Tensor, rules: _Rules) -> _Search:
    no, far = torch.zeros_like(first.t, dtype=torch.bool), torch.full_like(first.t, float("inf"))
    ends = _Ends(first, first, first)
    start = _Search(torch.zeros_like(first.t), first, ends, first, (far, far), no, no, no)

    def body(now: _Search) -> _Search:
        longer = torch.where(now.rounds == 0, guess, rules.increase * now.now.t)
        reached = no
        if rules.max_step is not None:
            limit = number(rules.max_step, like=longer)
            longer, reached = torch.minimum(longer, limit), longer >= limit
        point = along.at(torch.where(now.found, _middle(now.ends), longer))
        errors = _errors(point, first, rules)
        return select(now.found, _zoomed(now, point, errors, rules), _lengthened(now, point, errors, reached, rules))

    end = repeat(lambda now: ~(now.done | now.failed), body, start, rules.most)
    unsafe = (end.safe.t > 0) | end.errors[0].isinf()
    return end._replace(now=select(end.failed & unsafe, end.safe, end.now))


def _errors(point: Point, first: Point, rules: _Rules) -> tuple[Tensor, Tensor]:
    """Return how far a point is from a sufficient decrease, and from a slope flat enough."""
    decrease = point.value - first.value - rules.slope_rtol * point.t * first.slope
    if rules.approx_dec_rtol is not None:
        by_slope = point.slope - (2 * rules.slope_rtol - 1) * first.slope
        risen = point.value - first.value - rules.approx_dec_rtol * first.value.abs()
        decrease = torch.minimum(torch.maximum(by_slope, risen), decrease)
    return or_infinite(decrease), or_infinite(point.slope.abs() - rules.curv_rtol * first.slope.abs())


def _lengthened(now: _Search, point: Point, errors: tuple[Tensor, Tensor], reached: Tensor, rules: _Rules) -> _Search:
    """Go on after a step that was made longer (algorithm 3.5)."""
    good = torch.maximum(*errors) <= rules.tol
    is_high = (errors[0] > 0) | ((point.value >= now.now.value) & (now.rounds > 0))
    is_low = (point.slope >= 0) & ~is_high
    low, high = select(is_low, (point, now.now), (now.now, point))
    found = is_high | is_low | good
    done = good | (reached & ~found)
    safe = select(errors[0] <= rules.tol, point, now.safe)
    failed = (now.rounds + 1 >= rules.most) & ~done
    return _Search(now.rounds + 1, point, _Ends(low, high, low), safe, errors, found, done, failed)


def _zoomed(now: _Search, point: Point, errors: tuple[Tensor, Tensor], rules: _Rules) -> _Search:
    """Go on after a step between the ends (algorithm 3.6)."""
    low, high, _ = now.ends
    done = torch.maximum(*errors) <= rules.tol
    safe = select((errors[0] <= rules.tol) & (point.value < now.safe.value), point, now.safe)
    is_high = (errors[0] > 0) | (point.value >= low.value)
    turned = (point.slope * (high.t - low.t) >= 0) & ~is_high
    ends = _Ends(
        select(is_high, low, point),
        select(is_high, point, select(turned, low, high)),
        select(is_high | turned, high, low),
    )
    short = (high.t - low.t).abs() <= rules.precision
    over = (now.rounds + 1 >= rules.most) | (short & (safe.t > 0))
    return _Search(now.rounds + 1, point, ends, safe, errors, now.found, done, over & ~done)


def _middle(ends: _Ends) -> Tensor:
    """Return the minimum of a cubic, else that of a parabola, else the middle: what lies well between the ends."""
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
    """Return the minimum of the cubic with one point's value and slope and two values, and if there is one."""
    b, c = high.t - low.t, third.t - low.t
    over_b, over_c = high.value - low.value - low.slope * b, third.value - low.value - low.slope * c
    under = (b * c).square() * (b - c)
    third_order = safe_divide(c.square() * over_b - b.square() * over_c, under)
    second_order = safe_divide(b.pow(3) * over_c - c.pow(3) * over_b, under)
    radical = second_order.square() - 3 * third_order * low.slope
    at = low.t + safe_divide(safe_sqrt(radical) - second_order, 3 * third_order)
    return at, (radical >= 0) & (third_order != 0)

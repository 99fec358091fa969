"""Line search with guaranteed decrease (Moré and Thuente 1994, ACM TOMS 20(3), sections 2 to 4)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import (
    Number,
    Optimizer,
    active_leaves,
    check_count,
    check_nonnegative,
    safe_divide,
    safe_sqrt,
    select,
)

from ._line import Point, bounded_while, dot, error_at, make_line, replace_if_not_finite, scale_direction
from ._zoom import ZoomState, init_zoom_state

_LARGEST = 1e10


class _End(NamedTuple):
    t: Tensor
    value: Tensor
    slope: Tensor


class _Search(NamedTuple):
    rounds: Tensor
    current: Point  # the last point that was evaluated
    best: _End  # x of the paper
    other: _End  # y of the paper
    bracketed: Tensor
    first_stage: Tensor
    bounds: tuple[Tensor, Tensor]  # of the next step
    widths: tuple[Tensor, Tensor]  # of the last two brackets
    refused: Tensor  # whether the last point is not finite
    done: Tensor


class _Options(NamedTuple):
    slope_rtol: Number
    curv_rtol: Number
    precision: Number
    first: Point


def scale_by_more_thuente_linesearch(
    max_linesearch_steps: int = 20,
    *,
    slope_rtol: Number = 1e-3,
    curv_rtol: Number = 0.9,
    interval_rtol: Number = 0.1,
) -> Optimizer[ZoomState]:
    """Scale updates like the line search of SciPy's L-BFGS-B, with a first step size of 1.

    f(p + t u) ≤ f(p) + slope_rtol t ⟨g, u⟩ and |⟨g(p + t u), u⟩| ≤ curv_rtol |⟨g, u⟩|. A step needs `value=` and
    `grad=` at the parameters, and `value_fn=`, the function of the parameters. The search also ends when the bracket is
    shorter than `interval_rtol` times its upper end.

    Raises:
        ValueError: a number is out of its range.

    >>> from torchpure import optim
    >>> opt, params = optim.chain(optim.sgd(1.0), scale_by_more_thuente_linesearch()), torch.tensor([1.0])
    >>> f = lambda p: 2 * p.square().sum()
    >>> g = torch.tensor([4.0])
    >>> opt.step(g, opt.init(params), params, value=f(params), grad=g, value_fn=f)[0]
    tensor([0.])
    """
    check_count("scale_by_more_thuente_linesearch", max_linesearch_steps=max_linesearch_steps)
    check_nonnegative("scale_by_more_thuente_linesearch", slope_rtol=slope_rtol, curv_rtol=curv_rtol)

    def update(
        grads: Grads, state: ZoomState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, ZoomState]:
        (u, g, p), rebuild = active_leaves("scale_by_more_thuente_linesearch", grads, (grad,), params)
        zero = torch.zeros_like(state.learning_rate)
        first = Point(zero, value.to(zero), dot(g, u, zero), g)
        options, search_line = (
            _Options(slope_rtol, curv_rtol, interval_rtol, first),
            make_line(value_fn, rebuild, params, u, p),
        )

        def body(search: _Search) -> _Search:
            return _evaluate(_update_bracket(search, options), search_line, options)

        end = bounded_while(lambda search: ~search.done, body, _begin(search_line, options), max_linesearch_steps - 1)
        point = select(end.refused, first, end.current)
        decrease, curvature = _errors(point, options)
        new_grad = rebuild([leaf.clone() for leaf in point.grad], state.grad)
        new = ZoomState(point.t, point.value + 0, new_grad, end.rounds, decrease, curvature)
        return rebuild(scale_direction(point.t, u)), new

    return Optimizer(init_zoom_state, update, extra=("value", "grad", "value_fn"))


def _begin(search_line: Any, options: _Options) -> _Search:
    first = options.first
    zero, no = torch.zeros_like(first.t), torch.zeros_like(first.t, dtype=torch.bool)
    end = _End(zero, first.value, first.slope)
    bounds, widths = (zero, zero + 5), (zero + _LARGEST, zero + 2 * _LARGEST)
    start = first._replace(t=zero + 1)
    return _evaluate(_Search(zero, start, end, end, no, ~no, bounds, widths, no, no), search_line, options)


def _errors(point: Point, options: _Options) -> tuple[Tensor, Tensor]:
    decrease = point.value - options.first.value - options.slope_rtol * point.t * options.first.slope
    curvature = point.slope.abs() - options.curv_rtol * options.first.slope.abs()
    return error_at(point.value, decrease), error_at(point.value, curvature)


def _evaluate(search: _Search, search_line: Any, options: _Options) -> _Search:
    """Evaluate the function at the current step, and decide whether the search is done."""
    found = search_line.at(search.current.t)
    point = replace_if_not_finite(found, search.best)
    refused = ~(found.value.isfinite() & found.slope.isfinite())
    limit = options.first.value + point.t * options.slope_rtol * options.first.slope
    low = point.value <= limit
    first_stage = search.first_stage & ~(low & (point.slope >= 0))
    least, most = search.bounds
    stuck = search.bracketed & ((point.t <= least) | (point.t >= most) | (most - least <= options.precision * most))
    good = low & (point.slope.abs() <= -options.curv_rtol * options.first.slope)
    at_most = (point.t == _LARGEST) & low & (point.slope <= options.slope_rtol * options.first.slope)
    done = good | stuck | at_most
    return search._replace(rounds=search.rounds + 1, current=point, first_stage=first_stage, refused=refused, done=done)


def _update_bracket(search: _Search, options: _Options) -> _Search:
    """Choose the next step, and update the bracket.

    In the first stage this may use the paper's auxiliary function: f(t) − slope_rtol t ⟨g, u⟩.
    """
    slope = options.slope_rtol * options.first.slope
    point = _End(*search.current[:3])
    high = search.current.value > options.first.value + point.t * slope
    removed_slope = torch.where(search.first_stage & (point.value <= search.best.value) & high, slope, 0)
    best, other, current = (_add_slope(end, -removed_slope) for end in (search.best, search.other, point))
    t, bracketed = _next_step(best, other, current, search.bracketed, search.bounds)
    best, other = (_add_slope(end, removed_slope) for end in _replace_end(best, other, current))
    width, width_before = search.widths
    across = (other.t - best.t).abs()
    t = torch.where(bracketed & (across >= 0.66 * width_before), best.t + 0.5 * (other.t - best.t), t)
    widths = torch.where(bracketed, across, width), torch.where(bracketed, width, width_before)
    least = torch.where(bracketed, torch.minimum(best.t, other.t), t + 1.1 * (t - best.t))
    most = torch.where(bracketed, torch.maximum(best.t, other.t), t + 4 * (t - best.t))
    t = t.clamp(0, _LARGEST)
    stuck = bracketed & ((t <= least) | (t >= most) | (most - least <= options.precision * most))
    chosen = search.current._replace(t=torch.where(stuck, best.t, t))
    return search._replace(
        current=chosen, best=best, other=other, bracketed=bracketed, bounds=(least, most), widths=widths
    )


def _add_slope(end: _End, slope: Tensor) -> _End:
    return _End(end.t, end.value + end.t * slope, end.slope + slope)


def _replace_end(best: _End, other: _End, current: _End) -> tuple[_End, _End]:
    rises, turns = current.value > best.value, current.slope * best.slope.sign() < 0
    return select(rises, best, current), select(rises, current, select(turns, best, other))


def _next_step(
    best: _End, other: _End, current: _End, bracketed: Tensor, bounds: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the next step, and whether there is a bracket: the four cases of section 4."""
    rises, turns = current.value > best.value, current.slope * best.slope.sign() < 0
    flattens = current.slope.abs() < best.slope.abs()
    beyond = torch.where(current.t > best.t, bounds[1], bounds[0])
    open_end = torch.where(bracketed, _cubic(current, other), beyond)
    step = torch.where(flattens, _flatter_slope_step(best, other, current, bracketed, beyond, bounds), open_end)
    cubic, secant = _cubic(current, best), _secant(current, best)
    step = torch.where(turns, torch.where((cubic - current.t).abs() > (secant - current.t).abs(), cubic, secant), step)
    cubic, parabola = _cubic(best, current), _parabola(best, current)
    near = torch.where((cubic - best.t).abs() < (parabola - best.t).abs(), cubic, cubic + (parabola - cubic) / 2)
    return torch.where(rises, near, step), bracketed | rises | turns


def _flatter_slope_step(
    best: _End, other: _End, current: _End, bracketed: Tensor, beyond: Tensor, bounds: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the next step in case 3: the slope keeps its sign and becomes flatter.

    The cubic's minimum may then lie in the other direction, or may not exist.
    """
    across = best.t - current.t
    theta, gamma = _theta_gamma(current, best)
    gamma = torch.where(current.t > best.t, -gamma, gamma)
    share = safe_divide(gamma - current.slope + theta, gamma + (best.slope - current.slope) + gamma)
    cubic = torch.where((share < 0) & (gamma != 0), current.t + share * across, beyond)
    secant = _secant(current, best)
    closer = (cubic - current.t).abs() < (secant - current.t).abs()
    inside = torch.where(closer, cubic, secant)
    limit = current.t + 0.66 * (other.t - current.t)
    inside = torch.where(current.t > best.t, torch.minimum(limit, inside), torch.maximum(limit, inside))
    farther = (cubic - current.t).abs() > (secant - current.t).abs()
    outside = torch.minimum(torch.maximum(torch.where(farther, cubic, secant), bounds[0]), bounds[1])
    return torch.where(bracketed, inside, outside)


def _theta_gamma(one: _End, two: _End) -> tuple[Tensor, Tensor]:
    theta = 3 * safe_divide(one.value - two.value, two.t - one.t) + one.slope + two.slope
    return theta, safe_sqrt(theta.square() - one.slope * two.slope)


def _cubic(one: _End, two: _End) -> Tensor:
    """Return the minimum of the cubic through two values and slopes."""
    theta, gamma = _theta_gamma(one, two)
    gamma = torch.where(two.t < one.t, -gamma, gamma)
    share = safe_divide(gamma - one.slope + theta, gamma - one.slope + gamma + two.slope)
    return one.t + share * (two.t - one.t)


def _parabola(one: _End, two: _End) -> Tensor:
    """Return the minimum of the parabola through two values and the first slope."""
    across = two.t - one.t
    return one.t + safe_divide(one.slope, safe_divide(one.value - two.value, across) + one.slope) / 2 * across


def _secant(one: _End, two: _End) -> Tensor:
    """Return the zero of the line through two slopes."""
    return one.t + safe_divide(one.slope, one.slope - two.slope) * (two.t - one.t)

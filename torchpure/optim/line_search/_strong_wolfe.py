"""Line search for the strong Wolfe conditions with cubic steps, as in torch.optim.LBFGS (Schmidt 2005, minFunc)."""

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


class _Search(NamedTuple):
    rounds: Tensor
    previous: Point
    current: Point  # the last point that was evaluated
    one: Point  # the ends of the bracket
    two: Point
    one_is_low: Tensor
    bracketed: Tensor
    stalled: Tensor  # whether the last step was close to an end of the bracket
    done: Tensor


class _Options(NamedTuple):
    slope_rtol: Number
    curv_rtol: Number
    first: Point


def scale_by_strong_wolfe_linesearch(
    max_linesearch_steps: int = 25,
    *,
    slope_rtol: Number = 1e-4,
    curv_rtol: Number = 0.9,
    stepsize_precision: Number = 1e-9,
) -> Optimizer[ZoomState]:
    """Scale updates like the "strong_wolfe" line search of torch.optim.LBFGS, with a first step size of 1.

    f(p + t u) ≤ f(p) + slope_rtol t ⟨g, u⟩ and |⟨g(p + t u), u⟩| ≤ curv_rtol |⟨g, u⟩|. A step needs `value=` and
    `grad=` at the parameters, and `value_fn=`, the function of the parameters. Each t is the minimum of a cubic through
    two values and slopes. The search ends when the bracket moves no entry by more than `stepsize_precision`; then its
    lower end is taken.

    Raises:
        ValueError: a number is out of its range.

    >>> from torchpure import optim
    >>> opt, params = optim.chain(optim.sgd(1.0), scale_by_strong_wolfe_linesearch()), torch.tensor([1.0])
    >>> f = lambda p: 2 * p.square().sum()
    >>> g = torch.tensor([4.0])
    >>> opt.step(g, opt.init(params), params, value=f(params), grad=g, value_fn=f)[0]
    tensor([0.])
    """
    check_count("scale_by_strong_wolfe_linesearch", max_linesearch_steps=max_linesearch_steps)
    check_nonnegative("scale_by_strong_wolfe_linesearch", slope_rtol=slope_rtol, curv_rtol=curv_rtol)

    def update(
        grads: Grads, state: ZoomState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, ZoomState]:
        (u, g, p), rebuild = active_leaves("scale_by_strong_wolfe_linesearch", grads, (grad,), params)
        zero = torch.zeros_like(state.learning_rate)
        first = Point(zero, value.to(zero), dot(g, u, zero), g)
        options, search_line = _Options(slope_rtol, curv_rtol, first), make_line(value_fn, rebuild, params, u, p)
        max_entry = torch.stack([leaf.abs().max().to(zero) for leaf in u if leaf.numel()] or [zero]).max()

        def continues(search: _Search) -> Tensor:
            short = search.bracketed & ((search.two.t - search.one.t).abs() * max_entry < stepsize_precision)
            return ~(search.done | short)

        def body(search: _Search) -> _Search:
            inner, stalled = _inner_step(search)
            point = search_line.at(torch.where(search.bracketed, inner, _outer_step(search)))
            low = select(search.bracketed, select(search.one_is_low, search.one, search.two), search.current)
            point = replace_if_not_finite(point, low)
            shrunk = _shrink_bracket(search, point, stalled, options)
            return select(search.bracketed, shrunk, _extend(search, point, options))

        no = torch.zeros_like(zero, dtype=torch.bool)
        start = _Search(zero - 1, first, first, first, first, no, no, no, no)
        point = replace_if_not_finite(search_line.at(torch.ones_like(zero)), first)
        start = _extend(start, point, options)
        end = bounded_while(continues, body, start, max_linesearch_steps)
        best = select(end.one_is_low, end.one, end.two)
        best = select(end.bracketed, best, select(first.value <= end.current.value, first, end.current))
        best = select(best.value.isfinite(), best, first)  # a slope of NaN at the start leads nowhere
        return rebuild(scale_direction(best.t, u)), _state(state, best, end, rebuild, options)

    return Optimizer(init_zoom_state, update, extra=("value", "grad", "value_fn"))


def _state(old: ZoomState, best: Point, end: _Search, rebuild: Any, options: _Options) -> ZoomState:
    first = options.first
    decrease = error_at(best.value, best.value - first.value - options.slope_rtol * best.t * first.slope)
    curvature = error_at(best.value, best.slope.abs() - options.curv_rtol * first.slope.abs())
    new_grad = rebuild([leaf.clone() for leaf in best.grad], old.grad)
    return ZoomState(best.t, best.value + 0, new_grad, end.rounds + 1, decrease, curvature)


def _is_high(point: Point, options: _Options) -> Tensor:
    first = options.first
    return point.value > first.value + options.slope_rtol * point.t * first.slope


def _is_flat(point: Point, options: _Options) -> Tensor:
    return point.slope.abs() <= -options.curv_rtol * options.first.slope


def _extend(search: _Search, point: Point, options: _Options) -> _Search:
    """Update the search before there is a bracket: the point may be good, may end a bracket, or neither."""
    rounds = search.rounds + 1
    high = _is_high(point, options) | ((rounds > 1) & (point.value >= search.current.value))
    good = _is_flat(point, options) & ~high
    bracketed = high | good | (point.slope >= 0)
    one = select(good, point, search.current)
    low = one.value <= point.value
    return _Search(rounds, search.current, point, one, point, low, bracketed, search.stalled, good)


def _shrink_bracket(search: _Search, point: Point, stalled: Tensor, options: _Options) -> _Search:
    """Replace one end of the bracket with a point."""
    low, high = select(search.one_is_low, (search.one, search.two), (search.two, search.one))
    risen = _is_high(point, options) | (point.value >= low.value)
    done = _is_flat(point, options) & ~risen
    turned = ~done & (point.slope * (high.t - low.t) >= 0)
    new_low = select(risen, low, point)
    new_high = select(risen, point, select(turned, low, high))
    one, two = select(search.one_is_low, (new_low, new_high), (new_high, new_low))
    is_low = torch.where(risen, one.value <= two.value, search.one_is_low)
    return _Search(search.rounds + 1, search.current, point, one, two, is_low, search.bracketed, stalled, done)


def _outer_step(search: _Search) -> Tensor:
    t, previous = search.current.t, search.previous.t
    return _cubic(search.previous, search.current, t + 0.01 * (t - previous), t * 10)


def _inner_step(search: _Search) -> tuple[Tensor, Tensor]:
    """Return a step inside the bracket, and whether it is close to an end.

    If the last step was close to an end too, the step is moved away from it.
    """
    left, right = torch.minimum(search.one.t, search.two.t), torch.maximum(search.one.t, search.two.t)
    t, margin = _cubic(search.one, search.two, left, right), 0.1 * (right - left)
    close = torch.minimum(right - t, t - left) < margin
    moved = close & (search.stalled | (t >= right) | (t <= left))
    away = torch.where((t - right).abs() < (t - left).abs(), right - margin, left + margin)
    return torch.where(moved, away, t), close & ~moved


def _cubic(one: Point, two: Point, least: Tensor, most: Tensor) -> Tensor:
    """Return the minimum, within bounds, of the cubic through two values and slopes; if none exists, their middle."""
    left, right = select(one.t <= two.t, (one, two), (two, one))
    d1 = left.slope + right.slope - 3 * safe_divide(left.value - right.value, left.t - right.t)
    square = d1.square() - left.slope * right.slope
    d2 = safe_sqrt(square)
    share = safe_divide(right.slope + d2 - d1, right.slope - left.slope + 2 * d2)
    at = right.t - (right.t - left.t) * share
    return torch.where(square >= 0, torch.minimum(torch.maximum(at, least), most), (least + most) / 2)

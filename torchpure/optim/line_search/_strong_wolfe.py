"""Line search for the strong Wolfe conditions by cubics, in the form of torch.optim.LBFGS (Schmidt 2005, minFunc)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Number, Optimizer, active, check_count, check_positive, safe_divide, safe_sqrt, select

from ._line import Point, dot, line, or_infinite, repeat, scaled
from ._zoom import ZoomState, start_state


class _Search(NamedTuple):
    rounds: Tensor
    before: Point
    now: Point
    one: Point  # the ends of the bracket, once there is one
    two: Point
    one_is_low: Tensor
    bracketed: Tensor
    stalled: Tensor  # whether the last step was close to an end
    done: Tensor


class _Rules(NamedTuple):
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
    """Scale updates as the "strong_wolfe" search of torch.optim.LBFGS does, from a step of 1.

    f(p + t u) ≤ f(p) + slope_rtol t ⟨g, u⟩ and |⟨g(p + t u), u⟩| ≤ curv_rtol |⟨g, u⟩|. A step needs `value=` and
    `grad=`, of the parameters, and `value_fn=`, the function. Steps come from cubics through two values and slopes; a
    bracket in which no entry moves by `stepsize_precision` ends the search, with its lower end.

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
    check_positive("scale_by_strong_wolfe_linesearch", slope_rtol=slope_rtol, curv_rtol=curv_rtol)

    def update(
        grads: Grads, state: ZoomState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, ZoomState]:
        (u, g, p), restore = active("scale_by_strong_wolfe_linesearch", grads, (grad,), params)
        zero = torch.zeros_like(state.learning_rate)
        first = Point(zero, value.to(zero), dot(g, u, zero), g)
        rules, along = _Rules(slope_rtol, curv_rtol, first), line(value_fn, restore, params, u, p)
        widest = torch.stack([leaf.abs().max().to(zero) for leaf in u if leaf.numel()] or [zero]).max()

        def running(now: _Search) -> Tensor:
            short = now.bracketed & ((now.two.t - now.one.t).abs() * widest < stepsize_precision)
            return ~(now.done | short)

        def body(now: _Search) -> _Search:
            inner, stalled = _inner_step(now)
            point = along.at(torch.where(now.bracketed, inner, _outer_step(now)))
            return select(now.bracketed, _narrowed(now, point, stalled, rules), _examined(now, point, rules))

        no = torch.zeros_like(zero, dtype=torch.bool)
        start = _Search(zero - 1, first, first, first, first, no, no, no, no)
        start = _examined(start, along.at(torch.ones_like(zero)), rules)
        end = repeat(running, body, start, max_linesearch_steps)
        best = select(end.one_is_low, end.one, end.two)
        best = select(end.bracketed, best, select(first.value <= end.now.value, first, end.now))
        return restore(scaled(best.t, u)), _state(state, best, end, restore, rules)

    return Optimizer(start_state, update, extra=("value", "grad", "value_fn"))


def _state(old: ZoomState, best: Point, end: _Search, restore: Any, rules: _Rules) -> ZoomState:
    first = rules.first
    decrease = or_infinite(best.value - first.value - rules.slope_rtol * best.t * first.slope)
    curvature = or_infinite(best.slope.abs() - rules.curv_rtol * first.slope.abs())
    kept = restore([leaf.clone() for leaf in best.grad], old.grad)
    return ZoomState(best.t, best.value + 0, kept, end.rounds + 1, decrease, curvature)


def _is_high(point: Point, rules: _Rules) -> Tensor:
    first = rules.first
    return point.value > first.value + rules.slope_rtol * point.t * first.slope


def _is_flat(point: Point, rules: _Rules) -> Tensor:
    return point.slope.abs() <= -rules.curv_rtol * rules.first.slope


def _examined(now: _Search, point: Point, rules: _Rules) -> _Search:
    """Look at a point while there is no bracket: it ends one, is good, or is gone beyond."""
    rounds = now.rounds + 1
    high = _is_high(point, rules) | ((rounds > 1) & (point.value >= now.now.value))
    good = _is_flat(point, rules) & ~high
    bracketed = high | good | (point.slope >= 0)
    one = select(good, point, now.now)
    low = one.value <= point.value
    return _Search(rounds, now.now, point, one, point, low, bracketed, now.stalled, good)


def _narrowed(now: _Search, point: Point, stalled: Tensor, rules: _Rules) -> _Search:
    """Put a point in the place of one end of the bracket."""
    low, high = select(now.one_is_low, (now.one, now.two), (now.two, now.one))
    risen = _is_high(point, rules) | (point.value >= low.value)
    done = _is_flat(point, rules) & ~risen
    turned = ~done & (point.slope * (high.t - low.t) >= 0)
    new_low = select(risen, low, point)
    new_high = select(risen, point, select(turned, low, high))
    one, two = select(now.one_is_low, (new_low, new_high), (new_high, new_low))
    is_low = torch.where(risen, one.value <= two.value, now.one_is_low)
    return _Search(now.rounds + 1, now.now, point, one, two, is_low, now.bracketed, stalled, done)


def _outer_step(now: _Search) -> Tensor:
    t, before = now.now.t, now.before.t
    return _cubic(now.before, now.now, t + 0.01 * (t - before), t * 10)


def _inner_step(now: _Search) -> tuple[Tensor, Tensor]:
    """Return a step inside the bracket, and whether it is close to an end; a second time it is moved."""
    left, right = torch.minimum(now.one.t, now.two.t), torch.maximum(now.one.t, now.two.t)
    t, margin = _cubic(now.one, now.two, left, right), 0.1 * (right - left)
    close = torch.minimum(right - t, t - left) < margin
    moved = close & (now.stalled | (t >= right) | (t <= left))
    away = torch.where((t - right).abs() < (t - left).abs(), right - margin, left + margin)
    return torch.where(moved, away, t), close & ~moved


def _cubic(one: Point, two: Point, least: Tensor, most: Tensor) -> Tensor:
    """Return the minimum of the cubic through two values and slopes, between bounds; their middle if there is none."""
    left, right = select(one.t <= two.t, (one, two), (two, one))
    d1 = left.slope + right.slope - 3 * safe_divide(left.value - right.value, left.t - right.t)
    square = d1.square() - left.slope * right.slope
    d2 = safe_sqrt(square)
    share = safe_divide(right.slope + d2 - d1, right.slope - left.slope + 2 * d2)
    at = right.t - (right.t - left.t) * share
    return torch.where(square >= 0, torch.minimum(torch.maximum(at, least), most), (least + most) / 2)

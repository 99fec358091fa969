"""Line search with guaranteed decrease (Moré and Thuente 1994, ACM TOMS 20(3), sections 2 to 4)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, Updates
from torchpure.optim.core import Number, Optimizer, active, check_count, check_positive, safe_divide, safe_sqrt, select

from ._line import Point, dot, line, or_infinite, repeat, scaled
from ._zoom import ZoomState, start_state

_LARGEST = 1e10


class _End(NamedTuple):
    t: Tensor
    value: Tensor
    slope: Tensor


class _Search(NamedTuple):
    rounds: Tensor
    now: Point
    best: _End  # x of the paper
    other: _End  # y of the paper
    bracketed: Tensor
    first_stage: Tensor
    bounds: tuple[Tensor, Tensor]  # of the steps to come
    widths: tuple[Tensor, Tensor]  # of the last two brackets
    done: Tensor


class _Rules(NamedTuple):
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
    """Scale updates as the line search of SciPy's L-BFGS-B does, from a step of 1.

    f(p + t u) ≤ f(p) + slope_rtol t ⟨g, u⟩ and |⟨g(p + t u), u⟩| ≤ curv_rtol |⟨g, u⟩|. A step needs `value=` and
    `grad=`, of the parameters, and `value_fn=`, the function. It ends also when the bracket is shorter than
    `interval_rtol` of its upper end.

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
    check_positive("scale_by_more_thuente_linesearch", slope_rtol=slope_rtol, curv_rtol=curv_rtol)

    def update(
        grads: Grads, state: ZoomState, params: Params, *, value: Tensor, grad: Grads, value_fn: Any
    ) -> tuple[Updates, ZoomState]:
        (u, g, p), restore = active("scale_by_more_thuente_linesearch", grads, (grad,), params)
        zero = torch.zeros_like(state.learning_rate)
        first = Point(zero, value.to(zero), dot(g, u, zero), g)
        rules, along = _Rules(slope_rtol, curv_rtol, interval_rtol, first), line(value_fn, restore, params, u, p)

        def body(now: _Search) -> _Search:
            return _judged(_narrowed(now, rules), along, rules)

        end = repeat(lambda now: ~now.done, body, _begun(along, rules), max_linesearch_steps - 1)
        decrease, curvature = _errors(end.now, rules)
        kept = restore([leaf.clone() for leaf in end.now.grad], state.grad)
        new = ZoomState(end.now.t, end.now.value + 0, kept, end.rounds, decrease, curvature)
        return restore(scaled(end.now.t, u)), new

    return Optimizer(start_state, update, extra=("value", "grad", "value_fn"))


def _begun(along: Any, rules: _Rules) -> _Search:
    first = rules.first
    zero, no = torch.zeros_like(first.t), torch.zeros_like(first.t, dtype=torch.bool)
    end = _End(zero, first.value, first.slope)
    bounds, widths = (zero, zero + 5), (zero + _LARGEST, zero + 2 * _LARGEST)
    start = first._replace(t=zero + 1)
    return _judged(_Search(zero, start, end, end, no, ~no, bounds, widths, no), along, rules)


def _errors(point: Point, rules: _Rules) -> tuple[Tensor, Tensor]:
    decrease = point.value - rules.first.value - rules.slope_rtol * point.t * rules.first.slope
    return or_infinite(decrease), or_infinite(point.slope.abs() - rules.curv_rtol * rules.first.slope.abs())


def _judged(now: _Search, along: Any, rules: _Rules) -> _Search:
    """Evaluate the function at the step that was chosen, and see whether the search is over."""
    point = along.at(now.now.t)
    limit = rules.first.value + point.t * rules.slope_rtol * rules.first.slope
    low = point.value <= limit
    first_stage = now.first_stage & ~(low & (point.slope >= 0))
    least, most = now.bounds
    stuck = now.bracketed & ((point.t <= least) | (point.t >= most) | (most - least <= rules.precision * most))
    good = low & (point.slope.abs() <= -rules.curv_rtol * rules.first.slope)
    at_most = (point.t == _LARGEST) & low & (point.slope <= rules.slope_rtol * rules.first.slope)
    done = good | stuck | at_most
    return now._replace(rounds=now.rounds + 1, now=point, first_stage=first_stage, done=done)


def _narrowed(now: _Search, rules: _Rules) -> _Search:
    """Choose the next step, and move the ends: on the function itself, or in the first stage less its wanted slope."""
    slope = rules.slope_rtol * rules.first.slope
    point = _End(*now.now[:3])
    high = now.now.value > rules.first.value + point.t * slope
    tilt = torch.where(now.first_stage & (point.value <= now.best.value) & high, slope, 0)
    best, other, here = (_tilted(end, -tilt) for end in (now.best, now.other, point))
    t, bracketed = _next_step(best, other, here, now.bracketed, now.bounds)
    best, other = (_tilted(end, tilt) for end in _moved_ends(best, other, here))
    width, width_before = now.widths
    across = (other.t - best.t).abs()
    t = torch.where(bracketed & (across >= 0.66 * width_before), best.t + 0.5 * (other.t - best.t), t)
    widths = torch.where(bracketed, across, width), torch.where(bracketed, width, width_before)
    least = torch.where(bracketed, torch.minimum(best.t, other.t), t + 1.1 * (t - best.t))
    most = torch.where(bracketed, torch.maximum(best.t, other.t), t + 4 * (t - best.t))
    t = t.clamp(0, _LARGEST)
    stuck = bracketed & ((t <= least) | (t >= most) | (most - least <= rules.precision * most))
    chosen = now.now._replace(t=torch.where(stuck, best.t, t))
    return now._replace(now=chosen, best=best, other=other, bracketed=bracketed, bounds=(least, most), widths=widths)


def _tilted(end: _End, slope: Tensor) -> _End:
    return _End(end.t, end.value + end.t * slope, end.slope + slope)


def _moved_ends(best: _End, other: _End, here: _End) -> tuple[_End, _End]:
    rises, turns = here.value > best.value, here.slope * best.slope.sign() < 0
    return select(rises, best, here), select(rises, here, select(turns, best, other))


def _next_step(
    best: _End, other: _End, here: _End, bracketed: Tensor, bounds: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the next step and whether there is a bracket: the four cases of section 4."""
    rises, turns = here.value > best.value, here.slope * best.slope.sign() < 0
    flattens = here.slope.abs() < best.slope.abs()
    beyond = torch.where(here.t > best.t, bounds[1], bounds[0])
    open_end = torch.where(bracketed, _cubic(here, other), beyond)
    step = torch.where(flattens, _flattening(best, other, here, bracketed, beyond, bounds), open_end)
    cubic, secant = _cubic(here, best), _secant(here, best)
    step = torch.where(turns, torch.where((cubic - here.t).abs() > (secant - here.t).abs(), cubic, secant), step)
    cubic, parabola = _cubic(best, here), _parabola(best, here)
    near = torch.where((cubic - best.t).abs() < (parabola - best.t).abs(), cubic, cubic + (parabola - cubic) / 2)
    return torch.where(rises, near, step), bracketed | rises | turns


def _flattening(
    best: _End, other: _End, here: _End, bracketed: Tensor, beyond: Tensor, bounds: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the step where the slope keeps its sign and gets flatter: the cubic may have its minimum elsewhere."""
    across = best.t - here.t
    theta, gamma = _theta_gamma(here, best)
    gamma = torch.where(here.t > best.t, -gamma, gamma)
    share = safe_divide(gamma - here.slope + theta, gamma + (best.slope - here.slope) + gamma)
    cubic = torch.where((share < 0) & (gamma != 0), here.t + share * across, beyond)
    secant = _secant(here, best)
    closer = (cubic - here.t).abs() < (secant - here.t).abs()
    inside = torch.where(closer, cubic, secant)
    limit = here.t + 0.66 * (other.t - here.t)
    inside = torch.where(here.t > best.t, torch.minimum(limit, inside), torch.maximum(limit, inside))
    farther = (cubic - here.t).abs() > (secant - here.t).abs()
    outside = torch.minimum(torch.maximum(torch.where(farther, cubic, secant), bounds[0]), bounds[1])
    return torch.where(bracketed, inside, outside)


def _theta_gamma(one: _End, two: _End) -> tuple[Tensor, Tensor]:
    theta = 3 * safe_divide(one.value - two.value, two.t - one.t) + one.slope + two.slope
    return theta, safe_sqrt(theta.square() - one.slope * two.slope)


def _cubic(one: _End, two: _End) -> Tensor:
    """Return the minimum of the cubic through two values and slopes, as a step from the first."""
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

"""Code that line searches share: a function along a line, and a bounded while loop."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Params
from torchpure.optim.core import Rebuild, recompute_if, select
from torchpure.transforms.control_flow import while_loop
from torchpure.transforms.derivatives import value_and_grad

T = TypeVar("T")
Leaves = list[Tensor]


class Point(NamedTuple):
    """A point of a line. Numbers are float64, of shape ()."""

    t: Tensor  # the step size
    value: Tensor  # of the function
    slope: Tensor  # derivative of the value with respect to t
    grad: Leaves  # of the function


class Line(NamedTuple):
    """A function along the line origin + t · direction. Both are lists of real leaves."""

    objective: Callable[[Leaves], Tensor]
    origin: Leaves
    direction: Leaves

    def at(self, t: Tensor) -> Point:
        """Evaluate the function and its derivatives at step size t."""
        value, grad = value_and_grad(self.objective)(self._params_at(t)) if self.origin else (torch.zeros_like(t), [])
        return Point(t, value.to(t), dot(grad, self.direction, like=t), grad)

    def value(self, t: Tensor) -> Tensor:
        """Evaluate only the function at step size t."""
        return self.objective(self._params_at(t)).to(t)

    def _params_at(self, t: Tensor) -> Leaves:
        return [p + t * u for p, u in zip(self.origin, self.direction, strict=True)]


def make_line(value_fn: Callable[[Params], Tensor], rebuild: Rebuild, params: Params, u: Leaves, p: Leaves) -> Line:
    """Make the line from parameters p along updates u. `rebuild` is the second result of `active_leaves`."""
    return Line(lambda leaves: value_fn(rebuild(leaves, params)), p, u)


def dot(one: Sequence[Tensor], two: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return the inner product over all leaves, with the dtype of `like`."""
    return sum(((a * b).sum() for a, b in zip(one, two, strict=True)), start=torch.zeros_like(like))


def bounded_while(condition: Callable[[T], Tensor], body: Callable[[T], T], state: T, max_steps: int) -> T:
    """Apply `body` while `condition` holds, at most `max_steps` times.

    Under transforms and in traced programs this is a `while_loop`. Under `torch.compile` all rounds are computed, and
    those after the end of the loop do not change the state.

    >>> bounded_while(lambda x: x < 5, lambda x: 2 * x, torch.tensor(1), 10)
    tensor(8)
    """
    for num_done in range(max_steps):
        continues = condition(state)
        if is_dynamo_compiling():
            state = select(continues, body(state), state)
        elif not tree.plain([continues]):
            return while_loop(condition, body, state, max_steps=max_steps - num_done)
        elif bool(continues):
            state = body(state)
        else:
            break
    return state


def error_at(value: Tensor, error: Tensor) -> Tensor:
    """Clamp the error of a point at 0 from below. It is infinite if the error is NaN or the value is not finite."""
    return torch.where(error.isnan() | ~value.isfinite(), float("inf"), error).clamp(min=0)


def replace_if_not_finite(point: Point, low: Any) -> Point:
    """Replace the value and the slope of a point where one is not finite, so that a search takes a shorter step.

    The new ones are those of a parabola through `low`, whose minimum is a quarter of the way from `low` to the point.
    """
    finite = point.value.isfinite() & point.slope.isfinite()
    # the second term is more than a rounding error of the value: the new value is greater than that of `low`
    rise = (low.slope * (point.t - low.t)).abs() + 4 * torch.finfo(point.t.dtype).eps * low.value.abs()
    value = torch.where(finite, point.value, low.value + rise)
    return point._replace(value=value, slope=torch.where(finite, point.slope, -3 * low.slope))


def scale_direction(t: Tensor, direction: Sequence[Any]) -> Leaves:
    """Multiply each leaf of a direction by a step size. A step size of 0 gives 0, for every direction."""
    return [torch.where(t == 0, 0, t * u) for u in direction]


def value_and_grad_from_state(value_fn: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Params]]:
    """Make a `value_and_grad` function that reuses the last value and gradient of a line search.

    The result takes `(params, *args, state=…)`, and returns (value, gradient). Before the first step the state has
    neither, and they are computed. `state` may be the state of a chain.

    Raises:
        ValueError: the state has no fields for a value and a gradient (when called).

    >>> from torchpure import optim
    >>> f = lambda p: p.square().sum()
    >>> opt, params = optim.lbfgs(), torch.tensor([1.0])
    >>> value_and_grad_from_state(f)(params, state=opt.init(params))
    (tensor(1.), tensor([2.]))
    """

    def from_state(params: Params, *args: Any, state: Any) -> tuple[Tensor, Params]:
        stored = _stored_value_and_grad(state)
        if stored is None:
            raise ValueError(
                "value_and_grad_from_state: the state has no value and gradient: wanted that of lbfgs or of a line "
                "search (of scale_by_backtracking_linesearch with store_grad=True)"
            )

        def compute() -> tuple[Tensor, Params]:
            return value_and_grad(value_fn)(params, *args)

        return recompute_if(~stored[0].isfinite(), compute, stored)

    return from_state


def _stored_value_and_grad(state: Any) -> tuple[Tensor, Params] | None:
    """Find the value and the gradient in a state of any nesting."""
    if getattr(state, "value", None) is not None and getattr(state, "grad", None) is not None:
        return state.value, state.grad
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    return next((found for part in parts if (found := _stored_value_and_grad(part)) is not None), None)

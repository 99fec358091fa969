"""What line searches share: the function along a line, and a loop that ends early where it can."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Params
from torchpure.optim.core import Restore, refreshed, select
from torchpure.transforms.control_flow import while_loop
from torchpure.transforms.derivatives import value_and_grad

T = TypeVar("T")
Leaves = list[Tensor]


class Point(NamedTuple):
    """A point of a line; numbers are float64, of shape ()."""

    t: Tensor  # the step
    value: Tensor
    slope: Tensor  # the derivative along the line
    grad: Leaves


class Line(NamedTuple):
    """A function from a place along a direction; both as real leaves."""

    objective: Callable[[Leaves], Tensor]
    place: Leaves
    direction: Leaves

    def at(self, t: Tensor) -> Point:
        """Evaluate the function and its derivatives at a step."""
        value, grad = value_and_grad(self.objective)(self._reached(t)) if self.place else (torch.zeros_like(t), [])
        return Point(t, value.to(t), dot(grad, self.direction, like=t), grad)

    def value(self, t: Tensor) -> Tensor:
        """Evaluate the function alone."""
        return self.objective(self._reached(t)).to(t)

    def _reached(self, t: Tensor) -> Leaves:
        return [p + t * u for p, u in zip(self.place, self.direction, strict=True)]


def line(value_fn: Callable[[Params], Tensor], restore: Restore, params: Params, u: Leaves, p: Leaves) -> Line:
    """Make the line of a step: what `active` gave of updates and parameters, and how it puts leaves back."""
    return Line(lambda leaves: value_fn(restore(leaves, params)), p, u)


def dot(one: Sequence[Tensor], two: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return the inner product over all leaves, with the dtype of a number."""
    return sum(((a * b).sum() for a, b in zip(one, two, strict=True)), start=torch.zeros_like(like))


def repeat(running: Callable[[T], Tensor], body: Callable[[T], T], state: T, most: int) -> T:
    """Repeat `body` while `running` holds, at most so often.

    Under transforms and in traced programs, where a condition may not be asked for, it is a `while_loop`; for
    `torch.compile` all rounds are computed, and those after the last one change nothing.

    >>> repeat(lambda x: x < 5, lambda x: 2 * x, torch.tensor(1), 10)
    tensor(8)
    """
    for done in range(most):
        now = running(state)
        if is_dynamo_compiling():
            state = select(now, body(state), state)
        elif not tree.plain([now]):
            return while_loop(running, body, state, max_steps=most - done)
        elif bool(now):
            state = body(state)
        else:
            break
    return state


def or_infinite(error: Tensor) -> Tensor:
    """Return an error, at least 0, and infinite where it is not a number."""
    return torch.where(error.isnan(), float("inf"), error).clamp(min=0)


def scaled(t: Tensor, direction: Sequence[Any]) -> Leaves:
    """Multiply each leaf of a direction by a step."""
    return [t * u for u in direction]


def value_and_grad_from_state(value_fn: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Params]]:
    """Return `(params, *args, state=…)` → (value, gradient) that takes both from where the line search ended.

    Before the first step, where the state knows neither, they are computed. `state` may be that of a chain.

    Raises:
        ValueError: the state has no value and gradient (when called).

    >>> from torchpure import optim
    >>> f = lambda p: p.square().sum()
    >>> opt, params = optim.lbfgs(), torch.tensor([1.0])
    >>> value_and_grad_from_state(f)(params, state=opt.init(params))
    (tensor(1.), tensor([2.]))
    """

    def from_state(params: Params, *args: Any, state: Any) -> tuple[Tensor, Params]:
        known = _known(state)
        if known is None:
            raise ValueError(
                "value_and_grad_from_state: the state has no value and gradient: wanted that of lbfgs or of a line "
                "search (of scale_by_backtracking_linesearch with store_grad=True)"
            )

        def fresh() -> tuple[Tensor, Params]:
            return value_and_grad(value_fn)(params, *args)

        return refreshed(~known[0].isfinite(), fresh, known)

    return from_state


def _known(state: Any) -> tuple[Tensor, Params] | None:
    """Find value and gradient in a state, however nested."""
    if getattr(state, "value", None) is not None and getattr(state, "grad", None) is not None:
        return state.value, state.grad
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    return next((found for part in parts if (found := _known(part)) is not None), None)

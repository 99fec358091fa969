"""The description of an optimizer for the laws, and the small problems that the laws use."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params
from torchpure.optim import Optimizer

# with a tiny eps, derivatives with respect to it are too small to measure
_MEASURABLE = {"eps": 1e-2, "eps_root": 1e-2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An optimizer's factory, called `factory(learning_rate, **hyper, **options)`, and its expected properties.

    Every law passes `hyper` and `options`. Other numeric hyper-parameters are found in the factory's signature: the
    arguments after the first whose default is a float. The laws differentiate and batch over each.
    """

    factory: Callable[..., Optimizer[Any]]
    learning_rate: float = 0.05
    hyper: Mapping[str, float] = field(
        default_factory=dict
    )  # numbers that are differentiated; they replace the defaults
    options: Mapping[str, Any] = field(default_factory=dict)  # all other arguments: flags, dtypes, keys, counts
    fixed: tuple[str, ...] = ()  # float arguments that are not differentiable, such as thresholds for rounding
    differentiable: bool = True  # False only with a comment that gives the reason
    entrywise: bool = (
        True  # False if a leaf's shape matters, so that a complex leaf differs from its real and imaginary parts
    )
    scheduled: bool = True  # True: the learning rate can be a schedule
    parabola: int | None = 400  # steps to a thousandth of the start; None: it does not converge alone
    rosenbrock: tuple[float, int] | None = (0.02, 600)  # (learning_rate, steps) to a twentieth of the start
    optax: Any = None  # an oracle: a name in optax or optax.contrib, or a function that makes the transformation
    rtol: float = 1e-9  # to the optax oracle after 1,000 steps
    torch: Any = None  # an oracle: (class, function from its arguments to our optimizer, or None if we have none)

    def make(self, learning_rate: Any = None, **numbers: Any) -> Optimizer[Any]:
        """Make the optimizer; the defaults are the case's learning rate and numbers."""
        return self.factory(
            self.learning_rate if learning_rate is None else learning_rate, **{**self.hyper, **self.options, **numbers}
        )

    def numbers(self) -> dict[str, float]:
        """Return the numeric hyper-parameters except the learning rate, at values that allow measured derivatives."""
        _, *parameters = inspect.signature(self.factory).parameters.values()
        found = {one.name: one.default for one in parameters if type(one.default) is float}
        found = {name: _MEASURABLE.get(name, value) for name, value in found.items()} | dict(self.hyper)
        skipped = {*self.options, *self.fixed}
        return {name: value for name, value in found.items() if name not in skipped}


@dataclass(frozen=True, slots=True)
class Problem:
    """A function of parameters with its gradient in closed form, because the laws call both thousands of times."""

    value: Callable[[Params], Tensor]
    grad: Callable[[Params], Grads]
    start: Callable[[], Params]


def advance(optimizer: Optimizer[Any], problem: Problem, params: Params, state: Any) -> tuple[Params, Any]:
    """Make one step, with all keyword arguments that an optimizer can ask for."""
    grads = problem.grad(params)
    return optimizer.step(grads, state, params, **extras(optimizer, problem, params, grads))


def extras(optimizer: Optimizer[Any], problem: Problem, params: Params, grads: Grads) -> dict[str, Any]:
    """Return the keyword arguments of a step."""
    if not optimizer.extra:
        return {}
    return {"value": problem.value(params), "grad": grads, "value_fn": problem.value, "grad_fn": problem.grad}


def _bowl_start() -> Params:
    return {
        "w": torch.tensor([[0.9, -0.7], [1.1, -0.4]], dtype=torch.float64),
        "b": torch.tensor(0.5, dtype=torch.float64),
    }


def _stiffness(params: Params) -> Params:
    return {"w": params["w"].new_tensor([[1.0, 0.5], [2.0, 0.8]]), "b": params["b"].new_tensor(1.5)}


def _bowl_value(params: Params) -> Tensor:
    k, shift = _stiffness(params), params["w"].sum() + params["b"]
    squares = (k["w"] * (params["w"] - 0.2).square()).sum() + k["b"] * (params["b"] - 0.2).square()
    return 0.5 * squares + 0.05 * shift.square()


def _bowl_grad(params: Params) -> Grads:
    k, shift = _stiffness(params), params["w"].sum() + params["b"]
    return tree.map(lambda stiff, p: stiff * (p - 0.2) + 0.1 * shift, k, {"w": params["w"], "b": params["b"]})


BOWL = Problem(_bowl_value, _bowl_grad, _bowl_start)  # five scalars, convex, all different

PARABOLA = Problem(
    lambda params: params["w"].square().sum() + params["b"].square(),
    lambda params: tree.map(lambda p: 2 * p, params),
    _bowl_start,
)


def _valley_value(params: Params) -> Tensor:
    x, y = params["x"], params["y"]
    return ((1 - x).square() + 100 * (y - x.square()).square()).sum()


def _valley_grad(params: Params) -> Grads:
    x, y = params["x"], params["y"]
    rise = 200 * (y - x.square())
    return {"x": 2 * (x - 1) - 2 * x * rise, "y": rise}


def _valley_start() -> Params:
    return {"x": torch.tensor([-0.5], dtype=torch.float64), "y": torch.tensor([0.5], dtype=torch.float64)}


ROSENBROCK = Problem(_valley_value, _valley_grad, _valley_start)  # Rosenbrock 1960

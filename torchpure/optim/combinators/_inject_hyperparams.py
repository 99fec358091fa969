"""Hyper-parameters as entries of the state: to read, to change between steps, to batch and to differentiate."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, P, Params, Schedule, Step, Updates
from torchpure.optim.core import Optimizer, count, scalar


class InjectHyperparamsState(NamedTuple):
    """State of an optimizer whose factory went through `inject_hyperparams`."""

    step: Step  # float64, shape ()
    hyperparams: dict[str, Tensor]  # each of shape (); of a schedule, its value at the last update
    inner_state: Any


def inject_hyperparams(
    inner_factory: Callable[P, Optimizer[Any]],
    static_args: str | Iterable[str] = (),
    *,
    hyperparam_dtype: torch.dtype = torch.float64,
) -> Callable[P, Optimizer[InjectHyperparamsState]]:
    """Make a factory whose numeric hyper-parameters are in the state, those that follow a schedule too.

    `state.hyperparams["b1"]` is read at each update; replace it there to change it. Whole numbers whose default is one
    (sizes and counts), bools, strings and `static_args` stay as they are given.

    Raises:
        ValueError: `static_args` names what is no argument of the factory.

    >>> from torchpure import optim
    >>> opt = inject_hyperparams(optim.sgd)(0.5, momentum=0.9)
    >>> opt.init(torch.zeros(1)).hyperparams["momentum"]
    tensor(0.9000, dtype=torch.float64)
    """
    fixed = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    unknown = fixed - set(signature.parameters)
    if unknown:
        raise ValueError(f"inject_hyperparams: static_args {sorted(unknown)} are not in {list(signature.parameters)}")

    @wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> Optimizer[InjectHyperparamsState]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name not in fixed}
        rest = {name: value for name, value in bound.arguments.items() if name in fixed}
        numbers = {name: value for name, value in given.items() if _is_number(value, signature.parameters[name])}
        schedules = {name: value for name, value in given.items() if _is_schedule(name, value)}
        rest |= {name: value for name, value in given.items() if name not in numbers and name not in schedules}
        start = {name: value if isinstance(value, Tensor) else float(value) for name, value in numbers.items()}
        return _injected(inner_factory, rest, start, schedules, hyperparam_dtype)

    return factory


def _injected(
    factory: Callable[..., Optimizer[Any]],
    rest: dict[str, Any],
    numbers: dict[str, Any],
    schedules: dict[str, Schedule],
    dtype: torch.dtype,
) -> Optimizer[InjectHyperparamsState]:
    outer = factory(**rest, **numbers, **schedules)  # checks the values once, and tells which keywords it needs

    def at(step: Step) -> dict[str, Tensor]:
        return {name: schedule(step).to(dtype) for name, schedule in schedules.items()}

    def init(params: Params) -> InjectHyperparamsState:
        step = count(params)
        values = {name: scalar(value, params, dtype) for name, value in numbers.items()} | at(step)
        return InjectHyperparamsState(step, values, factory(**rest, **values).init(params))

    def update(
        grads: Grads, state: InjectHyperparamsState, params: Params, **extra: Any
    ) -> tuple[Updates, InjectHyperparamsState]:
        values = {**state.hyperparams, **at(state.step)}
        updates, inner_state = factory(**rest, **values).update(grads, state.inner_state, params, **extra)
        values = {name: value.clone() for name, value in values.items()}
        return updates, InjectHyperparamsState(state.step + 1, values, inner_state)

    return Optimizer(init, update, extra=outer.extra)


def _is_number(value: Any, parameter: inspect.Parameter) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.is_floating_point()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or not (isinstance(parameter.default, int) and parameter.default is not False)


def _is_schedule(name: str, value: Any) -> bool:
    # a learning rate or a weight decay may be a schedule; other functions among the arguments are masks and conditions
    return callable(value) and not isinstance(value, Optimizer) and ("rate" in name or "decay" in name)

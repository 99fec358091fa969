"""Hyper-parameters in the state, where they can be read, changed between steps, batched and differentiated."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, P, Params, Schedule, Step, Updates
from torchpure.optim.core import Optimizer, init_scalar, init_step_count


class InjectHyperparamsState(NamedTuple):
    """State of an optimizer whose factory went through `inject_hyperparams`."""

    step: Step  # float64, shape ()
    hyperparams: dict[str, Tensor]  # each of shape (); for a schedule, its value at the last update
    inner_state: Any


def inject_hyperparams(
    inner_factory: Callable[P, Optimizer[Any]],
    static_args: str | Iterable[str] = (),
    *,
    hyperparam_dtype: torch.dtype = torch.float64,
) -> Callable[P, Optimizer[InjectHyperparamsState]]:
    """Make a factory that keeps its numeric hyper-parameters in the state, and the values of its schedules.

    Each update reads `state.hyperparams["b1"]`; replace the entry to change the hyper-parameter. These are not in the
    state: integers whose default is an integer (sizes and counts), bools, strings, and `static_args`.

    Raises:
        ValueError: `static_args` has a name that is not an argument of the factory.

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
        static = {name: value for name, value in bound.arguments.items() if name in fixed}
        numbers = {name: value for name, value in given.items() if _is_number(value, signature.parameters[name])}
        schedules = {name: value for name, value in given.items() if _is_schedule(name, value)}
        static |= {name: value for name, value in given.items() if name not in numbers and name not in schedules}
        initial = {name: value if isinstance(value, Tensor) else float(value) for name, value in numbers.items()}
        return _injected(inner_factory, static, initial, schedules, hyperparam_dtype)

    return factory


def _injected(
    factory: Callable[..., Optimizer[Any]],
    static: dict[str, Any],
    numbers: dict[str, Any],
    schedules: dict[str, Schedule],
    dtype: torch.dtype,
) -> Optimizer[InjectHyperparamsState]:
    example = factory(**static, **numbers, **schedules)  # checks the values once, and has the names of extra keywords

    def scheduled_values(step: Step) -> dict[str, Tensor]:
        return {name: schedule(step).to(dtype) for name, schedule in schedules.items()}

    def init(params: Params) -> InjectHyperparamsState:
        step = init_step_count(params)
        values = {name: init_scalar(value, params, dtype) for name, value in numbers.items()} | scheduled_values(step)
        return InjectHyperparamsState(step, values, factory(**static, **values).init(params))

    def update(
        grads: Grads, state: InjectHyperparamsState, params: Params, **extra: Any
    ) -> tuple[Updates, InjectHyperparamsState]:
        values = {**state.hyperparams, **scheduled_values(state.step)}
        updates, inner_state = factory(**static, **values).update(grads, state.inner_state, params, **extra)
        values = {name: value.clone() for name, value in values.items()}
        return updates, InjectHyperparamsState(state.step + 1, values, inner_state)

    return Optimizer(init, update, extra=example.extra)


def _is_number(value: Any, parameter: inspect.Parameter) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.is_floating_point()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or not (isinstance(parameter.default, int) and parameter.default is not False)


def _is_schedule(name: str, value: Any) -> bool:
    # only learning rates and weight decays may be schedules; other callable arguments are masks and conditions
    return callable(value) and not isinstance(value, Optimizer) and ("rate" in name or "decay" in name)

"""Hyper-parameters in the state, where they can be read, changed between steps, batched and differentiated."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Grads, P, Params, Step, Tree, Updates
from torchpure.optim.core import Optimizer, evaluate_schedule, init_scalar, init_step_count


class InjectHyperparamsState(NamedTuple):
    """State of an optimizer whose factory went through `inject_hyperparams`."""

    step: Step  # float64, shape ()
    hyperparams: dict[str, Tree]  # tensors of shape (), or tuples of them; of a schedule, its value at the last update
    inner_state: Any


def inject_hyperparams(
    inner_factory: Callable[P, Optimizer[Any]],
    static_args: str | Iterable[str] = (),
    *,
    hyperparam_dtype: torch.dtype = torch.float64,
) -> Callable[P, Optimizer[InjectHyperparamsState]]:
    """Make a factory that keeps its numeric hyper-parameters in the state. Each may be a schedule.

    Each update reads `state.hyperparams["b1"]`; replace the entry to change the hyper-parameter. That of a schedule is
    replaced by the schedule's value at each update. A tuple of numbers, such as betas, is a tuple in the state. These
    are not in the state: sizes and counts (integers), bools, strings, masks, functions, and `static_args`.

    Raises:
        ValueError: `static_args` has a name that is not an argument of the factory.
        TypeError: `inner_factory` is an optimizer, and not the function that makes it.

    >>> from torchpure import optim
    >>> opt = inject_hyperparams(optim.sgd)(0.5, momentum=lambda step: 0.9 - 0.1 * step)
    >>> opt.init(torch.zeros(1)).hyperparams["momentum"]
    tensor(0.9000, dtype=torch.float64)
    """
    if isinstance(inner_factory, Optimizer) or not callable(inner_factory):
        got = "an optimizer" if isinstance(inner_factory, Optimizer) else f"{inner_factory!r:.60}"
        raise TypeError(f"inject_hyperparams: wanted a factory, as in inject_hyperparams(adam)(0.1), got {got}")
    fixed = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    unknown = fixed - set(signature.parameters)
    if unknown:
        raise ValueError(f"inject_hyperparams: static_args {sorted(unknown)} are not in {list(signature.parameters)}")

    @wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> Optimizer[InjectHyperparamsState]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        injected = {
            name: value
            for name, value in bound.arguments.items()
            if name not in fixed and _is_injected(value, signature.parameters[name])
        }
        static = {name: value for name, value in bound.arguments.items() if name not in injected}
        return _injected(inner_factory, static, injected, hyperparam_dtype)

    return factory


def _injected(
    factory: Callable[..., Optimizer[Any]], static: dict[str, Any], injected: dict[str, Any], dtype: torch.dtype
) -> Optimizer[InjectHyperparamsState]:
    scheduled = {name for name, value in injected.items() if any(map(callable, tree.leaves(value)))}

    def values_at(step: Step, given: dict[str, Any]) -> dict[str, Any]:
        return tree.map(lambda value: init_scalar(evaluate_schedule(value, step), step, dtype), given)

    first_values = values_at(torch.zeros((), dtype=torch.float64), {name: injected[name] for name in scheduled})
    example = factory(**static, **{**injected, **first_values})  # checks the numbers, and has the extra keywords

    def init(params: Params) -> InjectHyperparamsState:
        step = init_step_count(params)
        values = values_at(step, injected)
        return InjectHyperparamsState(step, values, factory(**static, **values).init(params))

    def update(
        grads: Grads, state: InjectHyperparamsState, params: Params, **extra: Any
    ) -> tuple[Updates, InjectHyperparamsState]:
        current = {name: injected[name] if name in scheduled else value for name, value in state.hyperparams.items()}
        values = values_at(state.step, current)
        updates, inner_state = factory(**static, **values).update(grads, state.inner_state, params, **extra)
        values = tree.map(torch.clone, values)
        return updates, InjectHyperparamsState(state.step + 1, values, inner_state)

    return Optimizer(init, update, extra=example.extra)


def _is_injected(value: Any, parameter: inspect.Parameter) -> bool:
    """Return whether the value of an argument is a number, a schedule, or a tuple of these."""
    if isinstance(value, tuple):
        is_tuple = get_origin(parameter.annotation) is tuple
        return is_tuple and all(_is_number(part) or _is_schedule(part) for part in value)
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.is_floating_point()
    takes_number = _takes_number(parameter)
    return (_is_number(value) and (isinstance(value, float) or takes_number)) or (_is_schedule(value) and takes_number)


def _is_number(value: Any) -> bool:
    is_scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
    return is_scalar or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_schedule(value: Any) -> bool:
    return callable(value) and not isinstance(value, Optimizer | nn.Module | type | Tensor)


def _takes_number(parameter: inspect.Parameter) -> bool:
    """Return whether an argument is numeric: by its annotation, or without one by its default and its name."""
    kind = parameter.annotation
    if kind is not inspect.Parameter.empty and not isinstance(kind, str):
        options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        return float in options or Tensor in options
    if isinstance(parameter.default, bool | int):
        return False
    return isinstance(parameter.default, float) or parameter.default is parameter.empty or "rate" in parameter.name

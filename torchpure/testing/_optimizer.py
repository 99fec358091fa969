"""Checks of an optimizer: every law, and that a step compiles."""

import itertools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from torchpure._types import Params, Step
from torchpure.optim import Optimizer

from ._assert import assert_trees_close
from ._case import PARABOLA, Case, advance
from ._laws import LAWS

_numbers = itertools.count()


def check_optimizer(factory: Callable[..., Optimizer[Any]] | Case, **expected: Any) -> None:
    """Check every law on small problems: `factory(learning_rate, **hyper)`, or a `Case`.

    `expected` are the fields of a `Case`: the learning rate, numbers to differentiate that the signature does not show,
    and how fast it converges.

    Raises:
        AssertionError: the optimizer breaks a law.
        TypeError: `factory` does not make an optimizer.

    >>> from torchpure import optim
    >>> check_optimizer(optim.sgd, hyper={"momentum": 0.9}, rosenbrock=(1e-3, 1000))
    """
    case = _case_of("check_optimizer", factory, expected)
    for law in LAWS.values():
        law(case)


def _case_of(caller: str, factory: Any, expected: dict[str, Any]) -> Case:
    if isinstance(factory, Case):
        return factory
    case = Case(factory=factory, **expected)
    made = case.make() if callable(factory) and not isinstance(factory, type) else factory
    if isinstance(factory, type) or not callable(factory) or not isinstance(made, Optimizer):
        raise TypeError(
            f"{caller}: wanted a function from a learning rate to an Optimizer, got {factory!r:.60}: pass the "
            "factory itself, as tp.optim.adam"
        )
    return case


def check_compiled(
    factory: Callable[..., Optimizer[Any]] | Case, *, backend: str = "inductor", **expected: Any
) -> None:
    """Check that ten steps with a schedule compile once, to one graph, and equal eager steps.

    Raises:
        AssertionError: results differ.
        torch._dynamo.exc.TorchDynamoException: the step does not compile to one graph, or recompiles.

    ::

        check_compiled(tp.optim.adam)
    """
    case = _case_of("check_compiled", factory, expected)
    optimizer = case.make(_falling(case.learning_rate) if case.scheduled else case.learning_rate)
    params = PARABOLA.start()

    def step(params: Params, state: Any) -> tuple[Params, Any]:
        return advance(optimizer, PARABOLA, params, state)

    compiled = torch.compile(_with_new_code_object(step), fullgraph=True, backend=backend)
    one = two = (params, optimizer.init(params))
    one, two = compiled(*one), step(*two)
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(9):
            one, two = compiled(*one), step(*two)
    assert_trees_close(one, two, rtol=1e-10, atol=1e-13)


def _falling(learning_rate: float) -> Any:
    def schedule(step: Step) -> torch.Tensor:
        return learning_rate * 0.9**step

    return schedule


def _with_new_code_object(fn: Any) -> Any:
    """Copy a function with a new code object, because the compiler limits recompiles of one code object."""
    code = fn.__code__.replace(co_name=f"step_{next(_numbers)}")
    return FunctionType(code, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)

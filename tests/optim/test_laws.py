"""Every optimizer, transformation and combinator against every law."""

import inspect

import pytest
import torch._dynamo
from cases import OPTIMIZERS
from cases_transforms import COMBINATORS, TRANSFORMS

from torchpure import optim, testing

CASES = OPTIMIZERS | TRANSFORMS | COMBINATORS


@pytest.mark.parametrize("law", testing.LAWS)
@pytest.mark.parametrize("name", CASES)
def test_law(name, law):
    testing.LAWS[law](CASES[name])


@pytest.mark.compile
@pytest.mark.parametrize("name", CASES)
def test_compiled_step_is_one_graph_and_never_compiles_again(name):
    # "eager" traces as the others do, and takes half the time; optimizers are also lowered. Numbers are constants of the
    # program either way: without this setting torch lowers once more to find that out
    with torch._dynamo.config.patch(specialize_float=True):
        testing.check_compiled(CASES[name], backend="aot_eager" if name in OPTIMIZERS else "eager")


@pytest.mark.compile
def test_compiled_adam_with_a_schedule_and_the_inductor_backend():
    testing.check_compiled(optim.adam)


def _factories():
    for name, value in vars(optim).items():
        if inspect.isfunction(value) and "Optimizer[" in str(inspect.signature(value).return_annotation):
            yield name


@pytest.mark.parametrize("name", list(_factories()))
def test_every_factory_has_a_case(name):
    elsewhere = {
        "measure_with_ema",  # a part of the case of monitor
        "donate",  # breaks a law by what it is for: see core/test_fused_steps.py
        "lift",  # steps outside of transforms only: see interop/test_lift.py
    }
    keys = {key.split(",")[0] for key in CASES} | elsewhere
    assert name in keys, (
        f"optim.{name} has no case. Every factory returning Optimizer has a case: add a line to tests/cases.py, "
        f'`"{name}": Case(factory=optim.{name}, optax="{name}"),` in OPTIMIZERS, or, if it is a transformation, to '
        f'tests/cases_transforms.py, `"{name}": _transform(optim.{name}),` in TRANSFORMS; see docs/adding.md'
    )

"""Every optimizer, transformation and combinator against every law."""

import inspect
import itertools

import pytest
import torch._dynamo
import torch.fx.passes._tensorify_python_scalars
from cases import OPTIMIZERS
from cases_transforms import COMBINATORS, TRANSFORMS
from daily import daily, proof

from torchpure import optim, testing

CASES = OPTIMIZERS | TRANSFORMS | COMBINATORS


SLOW = [
    "differentiable_in_everything",
    "batched_equals_looped",
    "live_tensors_stay_constant",
    "converges_on_a_parabola",
    "converges_on_rosenbrock",
]
FAMILIES = [name for name in OPTIMIZERS if "," not in name]
OTHERS = [name for name in CASES if name not in FAMILIES]  # variants, and the parts that optimizers are chains of
FAST = [law for law in testing.LAWS if law not in SLOW]
LAWS = [
    *itertools.product(CASES, FAST),
    *itertools.product(FAMILIES, SLOW),
    *daily(itertools.product(OTHERS, SLOW), 4),
]


@pytest.mark.parametrize(("name", "law"), LAWS)
def test_law(name, law):
    testing.LAWS[law](CASES[name])


COMPILED = [
    *daily((("eager", name) for name in CASES), 4),
    *(proof("aot_eager", name) for name in OPTIMIZERS),  # takes twice the time of eager
]


@pytest.mark.compile
@pytest.mark.parametrize(("backend", "name"), COMPILED)
def test_compiled_step_is_one_graph_and_does_not_recompile(backend, name, monkeypatch):
    # specialize_float makes numbers constants. The pass that turns numbers into tensors has then nothing to do, and
    # would still ask for a second trace of each program that has an input of shape ()
    monkeypatch.setattr(torch.fx.passes._tensorify_python_scalars, "_is_tensorify_enabled", lambda: False)
    with torch._dynamo.config.patch(specialize_float=True):
        testing.check_compiled(CASES[name], backend=backend)


@pytest.mark.proof
@pytest.mark.compile
def test_adam_with_a_schedule_compiles_with_inductor():
    testing.check_compiled(optim.adam)


def _factories():
    for name, value in vars(optim).items():
        if inspect.isfunction(value) and "Optimizer[" in str(inspect.signature(value).return_annotation):
            yield name


@pytest.mark.parametrize("name", list(_factories()))
def test_every_factory_has_a_case(name):
    elsewhere = {
        "measure_with_ema",  # it is in the case of monitor
        "donate",  # it changes its inputs: see core/test_fused_steps.py
        "lift",  # it does not step inside transforms: see interop/test_lift.py
    }
    keys = {key.split(",")[0] for key in CASES} | elsewhere
    assert name in keys, (
        f"optim.{name} has no case. Every factory returning Optimizer has a case: add a line to tests/cases.py, "
        f'`"{name}": Case(factory=optim.{name}, optax="{name}"),` in OPTIMIZERS, or, if it is a transformation, to '
        f'tests/cases_transforms.py, `"{name}": _transform(optim.{name}),` in TRANSFORMS; see docs/adding.md'
    )

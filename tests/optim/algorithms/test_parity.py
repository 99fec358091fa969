"""Optimizers against those of optax and torch, in float64."""

import pytest
import torch
from cases import OPTIMIZERS
from cases_transforms import COMBINATORS, TRANSFORMS
from daily import daily, proof
from oracles import noise, optax_maker, ours_for, run_optax, run_ours, run_torch, torch_inputs

CASES = OPTIMIZERS | TRANSFORMS | COMBINATORS


WITH_OPTAX = [name for name, case in CASES.items() if case.optax]
PARTS = [name for name in WITH_OPTAX if name not in OPTIMIZERS]  # the optimizers are chains of these
STEPS = [
    *((name, 200) for name in WITH_OPTAX if name in OPTIMIZERS),
    *daily(((name, 200) for name in PARTS), 3),
    *(proof(name, 1000) for name in WITH_OPTAX),
]


@pytest.mark.parametrize(("name", "steps"), STEPS)
def test_equals_optax(name, steps):
    case = CASES[name]
    ours, theirs = run_ours(case.make(), noise(steps)), run_optax(optax_maker(name, case), noise(steps))
    torch.testing.assert_close(ours, theirs, rtol=case.rtol, atol=case.rtol)


WITH_TORCH = [name for name, case in CASES.items() if case.torch]
INPUTS = [(name, desc) for name in WITH_TORCH for desc in torch_inputs(CASES[name].torch[0])]


@pytest.mark.parametrize(("name", "desc"), INPUTS)
def test_equals_torch_over_200_steps_for_torchs_own_inputs(name, desc):
    theirs, make = CASES[name].torch
    kwargs = torch_inputs(theirs)[desc]
    optimizer = ours_for(theirs, make, kwargs)
    if optimizer is None:
        pytest.skip(f"this library has no {name} with {kwargs}")
    ours, wanted = run_ours(optimizer, noise(200)), run_torch(theirs, kwargs, noise(200))
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)

"""Optimizers against those of optax and torch, in float64."""

import pytest
import torch
from cases import OPTIMIZERS
from cases_transforms import COMBINATORS, TRANSFORMS
from oracles import noise, optax_maker, ours_for, run_optax, run_ours, run_torch, torch_inputs

CASES = OPTIMIZERS | TRANSFORMS | COMBINATORS


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.optax])
def test_equals_optax_over_1000_steps(name):
    case = CASES[name]
    ours, theirs = run_ours(case.make(), noise(1000)), run_optax(optax_maker(name, case), noise(1000))
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

"""Scalars are computed before the program that reads them."""

import pytest
import torch

from torchpure.jit._donation import match_donated, write_into_donated
from torchpure.jit._trace import trace
from torchpure.jit.passes._fx import placeholders
from torchpure.jit.passes._hoist_scalars import hoist_scalars

D = torch.float64
STEP, X = torch.tensor(3.0, dtype=D), torch.linspace(-1, 1, 6, dtype=D)


def decayed(step, x):
    return step + 1, x * (1 - 0.9 ** (step + 1)) + torch.sin(step) * x.sum(), (step * 2).view(1)


def numbers_alone(step, x):
    return step.sin(), x * 2


def checked(step, x):
    torch._assert_async(step > 0, "no")
    return x * step.cos()


def in_place(step, x):
    y = x.clone()
    y.add_(step.cos())
    return y, x.mul(step.exp())


@pytest.mark.parametrize("f", [decayed, checked, in_place])
def test_law_both_parts_compute_what_the_program_does(f):
    module = trace(f, lambda values: (tuple(values), {}), (STEP, X)).module
    parts = hoist_scalars(module)
    assert parts is not None and len(placeholders(parts.rest)) > 2
    numbers = parts.scalars(*[(STEP, X)[place] for place in parts.reads])
    for got, wanted in zip(parts.rest(STEP, X, *numbers), module(STEP, X), strict=True):
        assert torch.equal(got, wanted)


def test_a_program_that_gains_nothing_is_not_split():
    assert hoist_scalars(trace(numbers_alone, lambda values: (tuple(values), {}), (STEP, X)).module) is None


def test_scalars_read_inputs_before_they_are_overwritten():
    module = trace(decayed, lambda values: (tuple(values), {}), (STEP, X)).module
    step, x = STEP.clone(), X.clone()
    parts = hoist_scalars(write_into_donated(module, match_donated(module, [0, 1])))
    assert parts is not None
    numbers = parts.scalars(*[(step, x)[place] for place in parts.reads])
    for got, wanted in zip(parts.rest(step, x, *numbers), module(STEP, X), strict=True):
        assert torch.equal(got, wanted)
    assert step == 4

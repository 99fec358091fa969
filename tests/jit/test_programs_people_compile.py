"""Programs that people compile: each equals eager, and compiles natively."""

import pytest
import torch
from cases_programs import PROGRAMS, Program

import torchpure as tp

pytestmark = pytest.mark.compile


def _assert_close(found, expected, tolerance):
    leaves = tp.tree.leaves(expected)
    for one, two in zip(tp.tree.leaves(found), leaves, strict=True):
        size = two.abs().max().item() if two.is_floating_point() else 0.0
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance * size, check_stride=False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_equals_eager_and_is_native(name):
    program: Program = PROGRAMS[name]()
    expected = program.fn(*program.args)
    compiled = tp.jit(program.fn, donate=program.donate)
    backend = compiled.lower(*program.args).backend
    assert program.not_native in backend if program.not_native else backend == "native"
    _assert_close(compiled(*program.args), expected, program.tolerance)

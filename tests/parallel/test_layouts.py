"""Law: in every layout, and in a program, a step is that of one process."""

import re

import pytest
from layout_cases import FITS_OF_TWO_AXES, LAYOUTS, MODELS, PAIR
from torch.testing import assert_close

pytestmark = pytest.mark.dist


def same(ours, wanted):
    assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_law_a_step_of_a_tensor_parallel_plan_is_that_of_one_process(pair, name):
    for ours, compiled, wanted, kept in pair.results("plan", name):
        same(ours, wanted)
        same(compiled, wanted)
        assert kept


@pytest.mark.parametrize("layout", LAYOUTS)
def test_law_a_step_of_jit_is_that_of_one_process(pair, layout):
    for ours, wanted, kept in pair.results("programs", layout):
        same(ours, wanted)
        assert kept


@pytest.mark.compile
def test_the_part_of_each_process_is_compiled_inside_of_shard_map(pair):
    for ours, wanted, traced in pair.results("compiled parts"):
        same(ours, wanted)
        assert traced == 1


MESSAGES = {
    "captured": "captures or makes a DTensor",
    "in shard_map": "captures or makes a DTensor",
    "made": "captures or makes a DTensor",
    "lower": "jit: lower: .* gets a DTensor, for which there is no program",
    "other mesh": r"device_put: .*`w`.* lies on the mesh \(data=2\), wanted \(data=1, model=2\)",
}


@pytest.mark.parametrize("how", MESSAGES)
def test_dtensors_that_no_program_can_hold(pair, how):
    for kind, text in pair.run("refused", how):
        assert kind == "raised" and re.search(MESSAGES[how], text), text


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("how", FITS_OF_TWO_AXES)
def test_law_a_fit_on_two_axes_is_that_of_one_process(pair, how, accumulate):
    for ours, wanted in pair.results("two axes", how, PAIR, accumulate):
        same(ours, wanted)


def test_law_a_step_on_two_axes_is_that_of_one_process(pair):
    for ours, wanted, kept in pair.results("step of two axes"):
        same(ours, wanted)
        assert kept


@pytest.mark.proof
@pytest.mark.parametrize("name", MODELS)
def test_four_processes(four, name):
    for how in FITS_OF_TWO_AXES:
        for accumulate in (1, 2):
            for ours, wanted in four.results("two axes", how, name, accumulate):
                same(ours, wanted)
    for ours, compiled, wanted, kept in four.results("plan", name):
        same((ours, compiled), (wanted, wanted))
        assert kept
    for ours, wanted, kept in four.results("step of two axes"):
        same(ours, wanted)
        assert kept

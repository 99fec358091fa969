"""Law: optimizers over DTensors make the steps of one process, and keep the layout of parameters and state."""

import pytest
import torch
from cases import OPTIMIZERS
from daily import daily
from sharded_cases import CHAINS, LAYOUTS
from torch.testing import assert_close

from torchpure import tree

pytestmark = pytest.mark.dist


def same(ours, wanted):
    assert tree.structure(ours) == tree.structure(wanted)
    for one, other in zip(tree.leaves(ours), tree.leaves(wanted), strict=True):
        if isinstance(one, torch.Tensor):
            assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", daily(OPTIMIZERS, 3))
def test_law_steps_of_parts_are_steps_of_the_whole(pair, name):
    for ours, wanted, kept, _ in pair.results("by_name", name):
        same(ours, wanted)
        assert kept


@pytest.mark.proof
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_law_steps_of_parts_are_steps_of_the_whole_in_every_layout(pair, name, layout):
    for ours, wanted, kept, _ in pair.results("by_name", name, layout):
        same(ours, wanted)
        assert kept


@pytest.mark.parametrize("name", CHAINS)
def test_law_combinators_of_parts_are_those_of_the_whole(pair, name):
    for ours, wanted, kept, _ in pair.results("chained", name):
        same(ours, wanted)
        assert kept


def test_a_state_begins_in_the_layout_of_its_parameters(pair):
    for *_, made in pair.results("by_name", "adam", "split"):
        rows, columns, *_ = made[1:]
        assert made[0] is None and rows == "(Shard(dim=0),)" and columns == "(Replicate(),)"


def test_gradients_that_are_still_to_be_summed(pair):
    for ours, wanted, kept in pair.results("updates"):
        same(ours, wanted)
        assert kept


def test_a_process_keeps_its_part_of_the_state(pair):
    for part, whole in pair.results("state_sizes"):
        assert part < 0.6 * whole  # "scale" and the step count are whole

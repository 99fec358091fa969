"""Law: a fit on a mesh is that of one process; errors come on every process."""

import pytest
import torch
from sharded_cases import FITS, WRONG
from torch.testing import assert_close

pytestmark = pytest.mark.dist


def same(ours, wanted):
    assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FITS)
def test_law_a_fit_on_a_mesh_is_that_of_one_process(pair, name):
    for params, history, wanted, losses in pair.results("fits", name):
        same(params, wanted)
        same(history, losses)


@pytest.mark.compile
def test_law_a_compiled_fit_on_a_mesh_is_that_of_one_process(pair):
    for params, history, wanted, losses in pair.results("fits", "program"):
        same(params, wanted)
        same(history, losses)


def test_processes_with_dropout_stay_equal(pair):
    one, other = pair.results("dropout")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_first_process_alone_writes_and_reports(pair, tmp_path):
    (length, reports, again, whole), others = pair.results("fit_saved", tmp_path / "saved")
    assert length == others[0] == 4 and reports == [2, 4] and others[1] == []
    for found, wanted in ((again, whole), others[2:]):
        assert torch.equal(found[1], wanted[1])
        assert all(torch.equal(found[0][name], wanted[0][name]) for name in wanted[0])
    (_, first), (_, second) = pair.run("fit_saved", tmp_path / "saved")
    assert "has a checkpoint of step" in first and "MeshError" in second and "has a checkpoint of step" in second


MESSAGES = {
    "rows": "take equal parts of a batch, but the number of rows is 7: choose a multiple of 2",
    "batch": "batch_size is 5",
    "last batch": "the last batch of an epoch is 3",
    "data": "the tensor at `data.0` differs between processes",
    "steps": "the tensor at `steps` differs between processes",
    "axes": "wanted a mesh of tp.make_mesh with an axis 'data', got axes",
    "no mesh": "mesh: wanted a mesh of tp.make_mesh with an axis 'data'",
    "world": "--mesh: make_mesh: the mesh (data=3) does not fit the 2 processes",
    "points": "--batch-size: 2 processes take equal parts of 7 points",
    "options": "`options` differs between processes",
    "axis": "partition_specs: the mesh has no axis 'model', it has ['data']",
}


@pytest.mark.parametrize("name", WRONG)
def test_every_process_raises(pair, name):
    for kind, text in pair.run("wrong", name):
        assert kind == "raised" and MESSAGES[name] in text, text


def test_law_a_run_of_two_processes_is_that_of_one(pair, tmp_path):
    for number, (losses, wanted, is_here) in enumerate(pair.results("runs", tmp_path)):
        same(losses, wanted)
        assert is_here == (number == 0)
    assert (tmp_path / "both" / "result.json").exists()


def test_the_page_on_training_runs(pair):
    assert all(pair.results("page of training"))


def test_the_examples_run(pair):
    for history, losses in pair.results("examples"):
        assert history[-1] < history[0]
        same(losses, losses[:1].expand_as(losses))  # all stages of ZeRO

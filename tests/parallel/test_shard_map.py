"""shard_map, device_put and vmap over meshes of two and four processes equal one process."""

import pytest
import torch
from parallel_cases import W, X, members, whole_loss
from torch.testing import assert_close

import torchpure as tp

pytestmark = pytest.mark.dist


def same(ours, wanted):
    assert_close(ours, wanted, rtol=1e-12, atol=1e-13)


def test_data_and_weights_split_by_two_axes_equal_one_process(pool):
    for found in pool.results("by_grid"):
        for name in ("value", "of DTensors", "keyword"):
            same(found[name], whole_loss(W, X))
        for name in ("gradients", "gradients of DTensors"):
            same(found[name], tp.grad(whole_loss, (0, 1))(W, X))
        same(found["hessian"], tp.hessian(whole_loss)(W, X))


def test_one_dimension_is_split_by_two_axes_in_either_order(pool):
    x, count = members(8), len(pool.processes)
    rows = torch.arange(count).repeat_interleave(8 // count)[:, None]
    wanted = x * x.sum() + rows + x.reshape(count, -1, 4).reshape(-1, 4).sum(0)
    gradient = tp.grad(lambda x: (x * x.sum() + rows + x.sum(0)).sin().sum())(x)
    for found in pool.results("by_both_axes"):
        for names in (("data", "model"), ("model", "data")):
            same(found[names], 2 * x)
            same(found[names, "collectives"], wanted)
            same(found[names, "gradient"], gradient)


def test_an_axis_of_vmap_inside_of_an_axis_of_a_mesh(pool):
    rows = (torch.arange(8) % (8 // len(pool.processes)))[:, None]

    def whole(x):
        return x * x.sum() + rows

    for found in pool.results("nested"):
        same(found["value"], whole(X))
        same(found["gradient"], tp.grad(lambda x: whole(x).sin().sum())(X))


def test_gradients_of_an_argument_of_all_processes_are_summed(pool):
    wanted = tp.grad(lambda w, x: ((x @ w) ** 2).mean())(W, X)
    for found in pool.results("replicated"):
        for name in ("outside", "inside", "forward"):
            same(found[name], wanted)


def test_gradients_of_captured_tensors_are_summed(pool):
    wanted = tp.grad(lambda w: ((X @ w) ** 2).mean())(W)
    slopes = tp.grad(lambda w: (tp.grad(lambda x: ((x @ w) ** 2).sum())(X) ** 2).sum() + w.sum())(W)
    for found in pool.results("captured"):
        same(found.pop("slopes"), slopes)
        assert len(found) == 6
        for gradient in found.values():
            same(gradient, wanted)


def test_an_axis_of_the_mesh_splits_the_members_of_vmap(pool):
    ws = torch.stack([W * i for i in range(8)], 1)
    mapped = tp.vmap(lambda w, x: (x @ w).sin(), in_dims=(1, None), out_dims=-1)
    for found in pool.results("spread_members"):
        same(found["value"], mapped(ws, X))
        same(found["gradient"], tp.grad(lambda ws: (mapped(ws, X) ** 2).sum())(ws))


def test_law_device_put_keeps_values(pool):
    for names, back, local, rest, gradient in pool.results("layouts"):
        assert names == ["(Replicate(), Shard(dim=0))", "(Replicate(), Replicate())", "(Shard(dim=0), Replicate())"]
        assert all(torch.equal(ours, wanted) for ours, wanted in zip(back, [W, X, W, X], strict=True))
        assert local == (4 // (len(pool.processes) // 2), 2) and rest == [3, "name"]
        same(gradient, 2 * W)


@pytest.mark.compile
def test_a_program_shows_its_collectives(pool):
    for text in pool.results("text_of_program"):
        assert "torchpure.collective" in text and '"torchpure::collective"' in text


@pytest.mark.compile
def test_the_page_on_many_devices_runs_on_many_processes(pool, tmp_path):
    w, x = torch.ones(4, 2, dtype=torch.float64), torch.arange(32, dtype=torch.float64).reshape(8, 4)
    for gradient in pool.results("page", str(tmp_path)):
        same(gradient, tp.grad(lambda w: ((x @ w).sin() ** 2).mean())(w))

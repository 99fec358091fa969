"""Tensors in parts, in one process: boxes, owners, manifests, and damage."""

import json
import random

import pytest
import torch
import torch.distributed as dist
from damage import fields_of, rewrite, write
from torch.distributed.tensor import DTensor, Shard

import torchpure as tp
from torchpure.checkpoints import _manifest, sharded
from torchpure.checkpoints.sharded import Box

PARTS = [Box((0, 0), (1, 4)), Box((1, 0), (2, 1)), Box((1, 1), (2, 3))]


@pytest.fixture
def mesh():
    """Make a mesh of this process; leave no group if there was none."""
    begun = not dist.is_initialized()
    yield tp.make_mesh((1,), ("data",))
    if begun:
        dist.destroy_process_group()


def test_parts_of_any_box_make_the_whole():
    source, draw = torch.arange(12.0).reshape(3, 4), random.Random(3)
    for _ in range(50):
        start = (draw.randrange(4), draw.randrange(5))
        wanted = Box(start, (draw.randrange(4 - start[0]), draw.randrange(5 - start[1])))
        target = torch.full(wanted.shape, -1.0)
        for part in PARTS:
            (a, b), (n, m) = part
            sharded.copy_part(source[a : a + n, b : b + m], part, target, wanted)
        (a, b), (n, m) = wanted
        assert torch.equal(target, source[a : a + n, b : b + m])


def test_a_part_is_written_once_and_by_the_process_with_the_least_to_write():
    loads = [0, 0, 0]
    whole = sharded.whole((4,))
    assert [sharded.owned([whole] * 3, 4, loads)[0][0] for _ in range(6)] == [0, 1, 2, 0, 1, 2] and loads == [32] * 3
    rows = [Box((0,), (2,)), Box((2,), (2,)), Box((4,), (0,))]
    assert sharded.owned(rows, 4, loads) == [(0, rows[0]), (1, rows[1])] and loads == [40, 40, 32]


def test_a_tree_without_dtensors_has_the_schema_that_older_versions_read(tmp_path):
    assert fields_of(write(tmp_path / "c"))["schema"] == 2


def test_a_tree_of_one_process_with_dtensors(tmp_path, mesh):
    w = torch.arange(12.0).reshape(3, 4)
    value = {"w": tp.device_put(w, mesh, tp.P("data")), "v": w, "none": None, "n": 1}
    tp.save(tmp_path / "c", value)
    assert fields_of(tmp_path / "c")["schema"] == 3
    found = tp.restore(tmp_path / "c", like=value)
    assert isinstance(found["w"], DTensor) and torch.equal(found["w"].full_tensor(), w) and torch.equal(found["v"], w)
    assert torch.equal(tp.restore(tmp_path / "c")["w"], w)
    with tp.train.Checkpointer(tmp_path / "run") as run:
        run.save(1, value)
        run.save(2, {"w": w})
        assert run.steps() == [1, 2]


def test_the_manifest_of_a_sharded_tree_is_read_as_it_was_written(tmp_path, mesh):
    tp.save(tmp_path / "c", {"w": DTensor.from_local(torch.ones(3, 4), mesh, [Shard(0)])})
    data = (tmp_path / "c" / "manifest.json").read_bytes()
    assert _manifest.write_manifest(_manifest.read_manifest(data), 3) == data
    (leaf,) = json.loads(data)["leaves"]
    assert leaf["shards"] == [{"file": 0, "name": "w", "offset": [0, 0], "shape": [3, 4]}]


def test_a_wrong_hash_of_a_sharded_tree_names_the_file(tmp_path, mesh):
    value = {"w": tp.device_put(torch.ones(3, 4), mesh, tp.P())}
    tp.save(tmp_path / "c", value)
    rewrite(tmp_path / "c", files=[{**fields_of(tmp_path / "c")["files"][0], "blake3": "0" * 64}])
    for like in (None, value):
        with pytest.raises(tp.errors.CheckpointError, match=r"the BLAKE3 hash of arrays-00000.safetensors is wrong"):
            tp.restore(tmp_path / "c", like=like)

"""Restoring into a tree of the user: what must agree, what is converted, and in part."""

import shutil
from typing import NamedTuple

import pytest
import torch

import torchpure as tp
from torchpure import checkpoints
from torchpure.errors import CheckpointError, InputError, StructureError

SAVED = {
    "encoder": {"w": torch.ones(2, 3), "b": torch.ones(3)},
    "decoder": {"w": torch.ones(3, 2, dtype=torch.float64)},
    "step": 3,
}


class State(NamedTuple):
    mean: object


class Other(NamedTuple):
    mean: object


@pytest.fixture
def saved(tmp_path):
    tp.save(tmp_path / "model", SAVED)
    return tmp_path / "model"


def _with(**changed):
    return {**SAVED, **changed}


DIFFERENT = {
    "missing": ({**SAVED, "head": torch.ones(1)}, StructureError, "`head`: wanted leaf, got nothing$"),
    "unexpected": ({"encoder": SAVED["encoder"], "step": 1}, StructureError, "`decoder`: wanted nothing, got dict$"),
    "renamed": (_with(decoder={"v": torch.ones(1)}), StructureError, "`decoder.v`: wanted leaf, .*`decoder.w`: wanted nothing"),
    "container": (_with(decoder=[torch.ones(1)]), StructureError, "`decoder`: wanted list, got dict"),
    "none": (_with(step=None), StructureError, "`step`: wanted None, got leaf"),
    "shape": (_with(decoder={"w": torch.ones(2, 3).double()}), InputError, r"`decoder.w`: wanted float64 of shape \(2, 3\), got float64 of shape \(3, 2\)"),
    "dtype": (_with(decoder={"w": torch.ones(3, 2)}), InputError, "`decoder.w`: wanted float32 of shape .*, got float64"),
    "kind": (_with(step=1.0), InputError, "`step`: wanted float, got int"),
    "tensor": (_with(step=torch.tensor(3)), InputError, r"`step`: wanted int64 of shape \(\), got int"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_from_like_is_named(saved, name):
    like, kind, message = DIFFERENT[name]
    with pytest.raises(kind, match=f"^restore: .*model: its .* `like`.*: .*{message}") as found:
        tp.restore(saved, like)
    assert type(found.value) is kind


def test_at_most_five_differences_are_shown(tmp_path):
    tp.save(tmp_path / "c", {f"w{i}": torch.ones(2) for i in range(12)})
    with pytest.raises(InputError, match=r"`w4`: .*; and 7 more$") as found:
        tp.restore(tmp_path / "c", like={f"w{i}": torch.ones(3) for i in range(12)})
    assert str(found.value).count("wanted") == 5


def test_a_state_of_another_class_is_refused(tmp_path):
    tp.save(tmp_path / "c", State(torch.ones(2)))
    assert torch.equal(tp.restore(tmp_path / "c", like=State(torch.zeros(2))).mean, torch.ones(2))
    with pytest.raises(StructureError, match="`.`: wanted Other, got State"):
        tp.restore(tmp_path / "c", like=Other(torch.zeros(2)))


def test_dicts_match_by_key_and_the_result_has_the_order_of_like(saved):
    like = {name: SAVED[name] for name in ("step", "decoder", "encoder")}
    found = tp.restore(saved, like)
    assert list(found) == list(like) and torch.equal(found["decoder"]["w"], SAVED["decoder"]["w"])


@pytest.mark.parametrize("pattern", ["encoder.*", "encoder/*", "*coder.[wb]", "encoder*"])
def test_only_restores_in_part(saved, pattern):
    like = _with(
        encoder={"w": torch.zeros(2, 3), "b": torch.zeros(3)}, decoder={"w": torch.full((3, 2), 7.0).double()}, step=9
    )
    found = tp.restore(saved, like, only=pattern)
    assert torch.equal(found["encoder"]["w"], torch.ones(2, 3)) and found["step"] == 9
    assert (found["decoder"]["w"] is like["decoder"]["w"]) == (not pattern.startswith("*"))


def test_only_takes_from_another_model_what_matches(saved):
    like = {"encoder": {"w": torch.zeros(2, 3), "b": torch.zeros(3)}, "head": torch.ones(5)}
    assert torch.equal(tp.restore(saved, like, only="encoder.*")["encoder"]["b"], torch.ones(3))
    with pytest.raises(StructureError, match="`head`: wanted leaf, got nothing"):
        tp.restore(saved, like, only="head")
    with pytest.raises(StructureError, match="`encoder.b`: wanted nothing, got leaf"):
        tp.restore(saved, {"encoder": {"w": torch.zeros(2, 3)}}, only="encoder.*")
    with pytest.raises(InputError, match="only='tail' matches no path; there are encoder.w"):
        tp.restore(saved, like, only="tail")
    with pytest.raises(InputError, match="only='tail' needs `like`"):
        tp.restore(saved, only="tail")


def test_dtype_converts_floating_point_alone(saved):
    found = tp.restore(saved, dtype=torch.bfloat16)
    assert {leaf.dtype for leaf in tp.tree.leaves(found) if isinstance(leaf, torch.Tensor)} == {torch.bfloat16}
    assert found["step"] == 3
    like = tp.tree.map(lambda x: x.float() if isinstance(x, torch.Tensor) else x, SAVED)
    assert tp.restore(saved, like, dtype=torch.float32)["decoder"]["w"].dtype is torch.float32


def test_dtype_does_not_turn_integers_into_floats(tmp_path):
    tp.save(tmp_path / "c", {"n": torch.arange(3)})
    assert tp.restore(tmp_path / "c", dtype=torch.float32)["n"].dtype is torch.int64
    with pytest.raises(InputError, match="`n`: wanted float32 of shape .*, got int64"):
        tp.restore(tmp_path / "c", like={"n": torch.ones(3)}, dtype=torch.float32)


def test_device_moves_tensors(saved):
    assert tp.restore(saved, device="meta")["encoder"]["w"].is_meta
    assert tp.restore(saved, like=SAVED, device=torch.device("meta"))["encoder"]["w"].is_meta


def test_shapes_of_eval_shape_serve_as_like(saved):
    like = _with(encoder=tp.eval_shape(lambda: SAVED["encoder"]))
    assert torch.equal(tp.restore(saved, like)["encoder"]["w"], torch.ones(2, 3))


def test_a_second_save_to_the_same_place_is_refused(saved):
    with pytest.raises(CheckpointError, match="save: .*model exists already"):
        tp.save(saved, {})
    assert tp.restore(saved)["step"] == 3


def test_missing_places_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "none": "there is no checkpoint",
        "file": "is no folder",
        "empty": "there is no manifest.json",
    }.items():
        with pytest.raises(CheckpointError, match=f"restore: .*{name}:? {message}"):
            tp.restore(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"save: .*absent/model: no such file or directory"):
        tp.save(tmp_path / "absent" / "model", {})


def test_a_newest_step_that_its_writer_removes_meanwhile_gives_way_to_a_newer_one(tmp_path, monkeypatch):
    with tp.train.Checkpointer(tmp_path, keep=1, asynchronous=False) as run:
        run.save(1, SAVED)
        original, seen = checkpoints._restore.read_leaves, []

        def slow(folder, manifest, wanted):
            seen.append(folder.name)
            if len(seen) < 3:
                run.save(len(seen) + 1, {**SAVED, "step": len(seen) + 1})
            return original(folder, manifest, wanted)

        monkeypatch.setattr(checkpoints._restore, "read_leaves", slow)
        assert tp.restore(tmp_path, like=SAVED)["step"] == 3
        assert seen == ["step-00000001", "step-00000002", "step-00000003"]
        run.save(4, SAVED)
        with pytest.raises(CheckpointError, match="no such file or directory"):
            monkeypatch.setattr(
                checkpoints._restore, "read_leaves", lambda *args: (shutil.rmtree(args[0]), original(*args))
            )
            tp.restore(tmp_path / "step-00000004")

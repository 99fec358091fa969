"""The checkpoints of a run: which stay, what a background write promises, and who may write."""

import math
import os
import subprocess
import sys
import threading

import pytest
import torch

import torchpure as tp
from torchpure import checkpoints
from torchpure.errors import CheckpointError, InputError
from torchpure.train import Checkpointer

BOTH = pytest.mark.parametrize("asynchronous", [False, True])


def _tree(value):
    return {"w": torch.full((4,), float(value)), "step": value}


@BOTH
def test_the_last_and_the_best_stay(tmp_path, asynchronous):
    losses = [0.5, 0.1, math.nan, 0.3, 0.1, 0.4, 0.6]
    with Checkpointer(tmp_path / "a" / "run", keep=2, best=("loss", "min"), asynchronous=asynchronous) as run:
        for step, loss in enumerate(losses):
            run.save(step, _tree(step), {"loss": torch.tensor(loss)})
            assert run.latest() == step
        assert run.steps() == [1, 5, 6] and run.best_step() == 1
        assert run.restore(1)["step"] == 1 and run.restore()["step"] == 6
        assert run.metrics(1) == {"loss": pytest.approx(0.1)}
        assert run.restore(like=_tree(0))["w"].tolist() == [6.0] * 4
    assert sorted(path.name for path in (tmp_path / "a" / "run").iterdir()) == [
        ".lock",
        "step-00000001",
        "step-00000005",
        "step-00000006",
    ]


def test_the_greatest_can_be_the_best(tmp_path):
    with Checkpointer(tmp_path, keep=1, best=("accuracy", "max")) as run:
        for step, accuracy in [(10, 0.5), (20, math.inf), (30, -math.inf)]:
            run.save(step, _tree(step), {"accuracy": accuracy, "loss": 1})
        assert run.steps() == [20, 30] and run.best_step() == 20
    with Checkpointer(tmp_path, keep=None, best=("accuracy", "max")) as run:
        assert run.best_step() == 20 and run.metrics(30) == {"accuracy": -math.inf, "loss": 1.0}
        run.save(40, _tree(40), {"accuracy": math.nan})
        assert run.steps() == [20, 30, 40] and run.best_step() == 20


def test_an_empty_folder_has_no_steps(tmp_path):
    with Checkpointer(tmp_path, best=("loss", "min")) as run:
        assert (run.steps(), run.latest(), run.best_step()) == ([], None, None)
        with pytest.raises(CheckpointError, match="there is no checkpoint yet"):
            run.restore()
        with pytest.raises(CheckpointError, match="step-00000007: there is no checkpoint"):
            run.restore(7)


def test_changes_in_place_after_a_save_do_not_matter(tmp_path):
    value = _tree(1)
    with Checkpointer(tmp_path) as run:
        run.save(1, value)
        value["w"].zero_()
        assert run.restore()["w"].tolist() == [1.0] * 4


def test_one_write_is_in_flight_and_the_next_save_waits(tmp_path, monkeypatch):
    gate, running, most = threading.Event(), [0], [0]
    original = checkpoints._checkpointer.write_checkpoint

    def slow(*args):
        running[0] += 1
        most[0] = max(most[0], running[0])
        gate.wait(10)
        original(*args)
        running[0] -= 1

    monkeypatch.setattr(checkpoints._checkpointer, "write_checkpoint", slow)
    with Checkpointer(tmp_path) as run:
        run.save(1, _tree(1))
        waiting = threading.Thread(target=lambda: run.save(2, _tree(2)))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        gate.set()
        waiting.join(10)
        assert run.steps() == [1, 2] and most == [1]


def _failing(*args):
    raise CheckpointError("Checkpointer.save: /disk/step-1: no space left on device")


@pytest.mark.parametrize("call", ["save", "wait", "steps", "latest", "restore", "metrics", "close"])
def test_an_error_of_the_background_is_raised_once_by_the_next_call(tmp_path, monkeypatch, call):
    run = Checkpointer(tmp_path)
    run.save(1, _tree(1))
    run.wait()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints._checkpointer, "write_checkpoint", _failing)
        run.save(2, _tree(2))
        run._thread.join()
    arguments = {"save": (3, {}), "metrics": (1,)}.get(call, ())
    with pytest.raises(CheckpointError, match="/disk/step-1: no space left"):
        getattr(run, call)(*arguments)
    if call != "close":
        assert run.steps() == [1]
        run.save(2, _tree(2))
        run.close()
    with Checkpointer(tmp_path) as run:
        assert run.latest() == (1 if call == "close" else 2)


def test_a_block_that_fails_keeps_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints._checkpointer, "write_checkpoint", _failing)
    with pytest.raises(KeyError) as found, Checkpointer(tmp_path) as run:
        run.save(1, _tree(1))
        raise KeyError("mine")
    assert "no space left" in found.value.__notes__[0]
    with pytest.raises(CheckpointError, match="no space left"), Checkpointer(tmp_path) as run:
        run.save(1, _tree(1))


def test_a_folder_has_one_writer(tmp_path):
    with Checkpointer(tmp_path) as run:
        run.save(1, _tree(1))
        with pytest.raises(CheckpointError, match=f"process {os.getpid()} writes there already"):
            Checkpointer(tmp_path)
        code = f"import torchpure as tp; tp.train.Checkpointer({str(tmp_path)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert f"process {os.getpid()} writes there already" in done.stderr
        run.wait()
        assert tp.restore(tmp_path)["step"] == 1
    Checkpointer(tmp_path).close()


def test_a_closed_one_says_so(tmp_path):
    run = Checkpointer(tmp_path)
    run.close()
    run.close()
    for call in (run.steps, run.latest, lambda: run.save(1, {})):
        with pytest.raises(CheckpointError, match="is closed"):
            call()


def test_the_end_of_the_program_waits_for_a_write(tmp_path):
    lines = [
        "import sys, torch, torchpure as tp",
        "tp.checkpoints._plan._LEAST_FILE = 1000",
        f"run = tp.train.Checkpointer({str(tmp_path)!r})",
        "run.save(5, [torch.ones(200_000) for _ in range(20)])",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr
    assert len(tp.restore(tmp_path)) == 20


def test_stray_folders_of_dead_writers_go_and_others_stay(tmp_path):
    for name in (".step-00000003-0123abcd.partial", ".other-0123abcd.partial", "mine", ".step-3.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "arrays-00000.safetensors").write_text("x")
    living = tmp_path / ".step-00000004-0123abcd.partial"
    living.mkdir()
    with checkpoints._locks.opened_folder(living) as descriptor:
        assert checkpoints._locks.try_lock(descriptor)
        Checkpointer(tmp_path).close()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".lock", ".other-0123abcd.partial", "mine", ".step-3.partial", living.name}


def test_a_checkpoint_that_cannot_be_read_is_not_removed_for_another_best(tmp_path):
    with Checkpointer(tmp_path, keep=1, best=("loss", "min")) as run:
        run.save(1, _tree(1), {"loss": 0.0})
    manifest = tmp_path / "step-00000001" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-1])
    with Checkpointer(tmp_path, keep=1, best=("loss", "min")) as run:
        for step in (2, 3, 4):
            run.save(step, _tree(step), {"loss": step})
        assert run.steps() == [1, 2, 4] and run.best_step() == 2


def test_should_save_at_multiples(tmp_path):
    with Checkpointer(tmp_path, every=5) as run:
        assert [step for step in range(12) if run.should_save(step)] == [0, 5, 10]


def test_arguments_are_checked(tmp_path):
    for options, message in [
        ({"keep": 0}, "keep: wanted None or at least 1, got 0"),
        ({"every": 0}, "every: wanted at least 1, got 0"),
        ({"best": "loss"}, "best: wanted a pair"),
        ({"best": ("loss", "least")}, "best: wanted a pair"),
    ]:
        with pytest.raises(InputError, match=message):
            Checkpointer(tmp_path, **options)
    with Checkpointer(tmp_path, best=("loss", "min")) as run:
        run.save(5, _tree(5), {"loss": 1})
        for arguments, message in [
            ((5, {}, {"loss": 1}), "step 5: wanted more than 5, the newest"),
            ((-1, {}, {"loss": 1}), "step: wanted an integer"),
            ((6.0, {}, {"loss": 1}), "step: wanted an integer"),
            ((6, {}), "metrics: wanted 'loss', got"),
            ((6, {}, {"loss": "low"}), "metrics: wanted numbers by name"),
            ((6, {}, {"loss": 1}, {"step": 3}), "metadata: .'step'. are names of its own"),
            ((6, [b"x"], {"loss": 1}), "Checkpointer.save: leaf `0` is a bytes"),
        ]:
            with pytest.raises(InputError, match=message):
                run.save(*arguments)
        assert run.steps() == [5]
    with Checkpointer(tmp_path) as run, pytest.raises(InputError, match="made without `best`"):
        run.best_step()

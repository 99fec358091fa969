"""Runs that are trained longer than they were asked to."""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from torchpure.cli import main
from torchpure.errors import InputError
from torchpure.runs import Watcher, configure, load_run, read_run, resume, run
from torchpure.train import Checkpointer

pytestmark = pytest.mark.usefixtures("here")
SMALL = {"target": "2*sin(x)", "hidden": "4", "steps": 40, "checkpoint_every": 7, "schedule": "constant"}
OPTIONS = {
    "adam": {},
    "adamw": {"optimizer": "adamw", "checkpoint_every": 0},
    "momentum, float64": {"optimizer": "sgd", "dtype": "float64", "learning_rate": 0.01},
    "minibatches": {"batch_size": 10, "validation_points": 5},
}


def bits(folder):
    """Everything but the configuration, which says that the run was trained longer."""
    files = {name: (Path(folder) / name).read_bytes() for name in ("metrics.jsonl", "params.safetensors")}
    with Checkpointer(Path(folder) / "checkpoints") as checkpoints:
        saved = checkpoints.restore()
    return files | {"opt_state": repr(saved["opt_state"]), "params": repr(saved["params"])}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_that_is_trained_longer_has_the_bits_of_one_asked_for_at_once(name):
    config = configure(SMALL | OPTIONS[name])
    whole = run(config.model_copy(update={"steps": 100}), Path("whole"))
    run(config, Path("longer"))
    notes = []
    assert resume("longer", steps=60, note=notes.append).fit.steps == 60
    assert resume("longer", steps="+40", note=notes.append).fit.losses == whole.fit.losses
    assert bits("longer") == bits("whole") and not notes
    described = json.loads(Path("longer/config.json").read_text())
    assert [change["to"] for change in described.pop("trained_longer")] == [60, 100]
    assert described == json.loads(Path("whole/config.json").read_text())


def test_epochs_are_passes_over_the_training_points():
    config = configure(SMALL | {"batch_size": 10})
    run(config.model_copy(update={"steps": 80}), Path("whole"))
    run(config, Path("longer"))
    resume("longer", epochs=15)
    resume("longer", epochs="+5")
    assert bits("longer") == bits("whole")


def test_an_interrupted_run_is_trained_longer_too():
    @contextlib.contextmanager
    def watch(steps, threads):
        seen = []
        yield Watcher(lambda at, loss: seen.append(at), lambda: signal.SIGINT if seen and seen[-1] >= 20 else 0)

    run(configure(SMALL | {"steps": 60}), Path("whole"))
    assert run(configure(SMALL), Path("stopped"), watch).fit.code == 130
    resume("stopped", steps=60)
    assert bits("stopped") == bits("whole")


def test_with_a_cosine_schedule_the_difference_is_said(capsys):
    run(configure(SMALL | {"schedule": "cosine"}), Path("longer"))
    assert main(["resume", "longer", "--steps", "60"]) == 0
    out, err = capsys.readouterr()
    assert "60 steps in" in out and "the cosine schedule was that of 40 steps and is now that of 60" in err
    assert json.loads(Path("longer/config.json").read_text())["trained_longer"] == [
        {"from": 40, "to": 60, "exact": False}
    ]
    assert load_run("longer").config.steps == 60


def test_a_longer_run_that_is_killed_goes_on():
    @contextlib.contextmanager
    def watch(steps, threads):
        yield Watcher(lambda at, loss: os._exit(9) if at == 52 else None, lambda: 0)

    run(configure(SMALL | {"steps": 60}), Path("whole"))
    run(configure(SMALL), Path("longer"))
    child = os.fork()
    if not child:
        resume("longer", watch, steps=60)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert read_run("longer").status == "unfinished" and load_run("longer").model is not None
    resume("longer")
    assert bits("longer") == bits("whole")


def test_what_cannot_be_trained_longer_is_refused(capsys):
    run(configure(SMALL), Path("made"))
    before = {path: path.read_bytes() for path in Path("made").iterdir() if path.is_file()}
    for options, message in (
        (["--steps", "40"], "--steps: the run has 40 steps; wanted a larger number in all, or +N for N more, got '40'"),
        (["--steps", "many"], "--steps: wanted an integer such as 2000, or +500 for 500 more, got 'many'"),
        (["--steps", "+0"], "wanted a larger number"),
        (["--steps", "99999999"], "--steps: wanted at most 10000000 steps in all"),
        (["--epochs", "9"], "--epochs: each step of this run takes all points: wanted --steps"),
        (["--epochs", "9", "--steps", "90"], "--steps, --epochs: wanted one of them"),
        ([], "the run is done; wanted one that was interrupted or killed; to train longer, name more --steps"),
    ):
        assert main(["resume", "made", *options]) == 2
        assert message in capsys.readouterr().err
    shutil.rmtree("made/checkpoints")
    with pytest.raises(InputError, match="has no checkpoint to go on from; fit again with more --steps"):
        resume("made", steps=60)
    assert {path: path.read_bytes() for path in before} == before


def test_a_diverged_run_and_a_sweep_are_not_trained_longer(capsys):
    assert main(["fit", "2*sin(x)", "--optimizer", "sgd", "--lr", "100", "--steps", "40", "--out", "bad"]) == 1
    assert main(["resume", "bad", "--steps", "60"]) == 2
    assert "the run is diverged; fit again with a smaller --learning-rate" in capsys.readouterr().err
    assert main(["sweep", "x", "--vary", "seed=0:2", "--steps", "3", "--hidden", "2", "--out", "many"]) == 0
    assert main(["resume", "many", "--steps", "60"]) == 2
    assert "many is a sweep, whose members keep theirs" in capsys.readouterr().err

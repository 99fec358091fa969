"""Sweeps: members against single fits, against each other, and sweeps that are interrupted, killed and resumed."""

import contextlib
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from daily import daily, proof

from torchpure import runs
from torchpure.errors import CheckpointError, InputError
from torchpure.runs import SweepWatcher, configure, load_run, resume_sweep, run, sweep
from torchpure.runs.sweeps import _group
from torchpure.train import Checkpointer

pytestmark = pytest.mark.usefixtures("here")
SMALL = {"target": "2*sin(x + 2*pi)", "hidden": "4", "steps": 40}
SPACE = {"learning_rate": "1e-3:1e-1:log:3", "seed": "0:2"}


def numbers(row):
    return {name: value for name, value in row.items() if name != "index"}


def bits(folder):
    folder = Path(folder)
    curves = np.load(folder / "curves.npz")
    files = ("results.jsonl", "config.json", "best/params.safetensors", "best/metrics.jsonl")
    return {name: (folder / name).read_bytes() for name in files} | {name: curves[name].tobytes() for name in curves}


FITS = {  # options, space
    "adam": ({}, SPACE),
    "weight decay": ({"schedule": "constant"}, {"weight_decay": [0.0, 0.1], "optimizer": "adam|adamw|sgd"}),
    "networks": ({}, {"hidden": [(3,), (4, 5)], "activation": "tanh|relu", "dtype": "float32|float64"}),
    "steps": ({"schedule": "cosine"}, {"steps": "1|2|17", "learning_rate": [0.05, 0.1]}),
    "losses": ({"validation_points": 5, "target": "30*x"}, {"loss": "mse|mae|huber", "seed": "0:2"}),
    "batches": ({"train_points": 30}, {"batch_size": "7|10|30|29", "seed": "0:2"}),
    "article": ({"preset": "article", "hidden": None}, {"seed": "3:6"}),
    "two inputs": ({"target": "x*y", "domain": "x=-1:1,y=0:2"}, {"train_points": "20|30", "seed": "0:2"}),
    "diverges": ({"optimizer": "sgd", "schedule": "constant"}, {"learning_rate": [1e-2, 100.0, 1e38]}),
    "large seeds": ({}, {"seed": [2**64 - 1, 2**63]}),
}


@pytest.mark.parametrize("name", daily(FITS, 2))
def test_each_member_equals_the_run_of_its_configuration_up_to_rounding(name):
    options, space = FITS[name]
    found = sweep(SMALL | options, space, out=Path("all"))
    names = [axis.name for axis in found.axes]
    for row in found.rows:
        alone = run(configure(SMALL | options | {name: row[name] for name in names}), Path(f"member{row['index']}")).fit
        assert (row["status"], row["steps"]) == (("done", "diverged")[alone.code], alone.steps)
        if row["status"] == "done":
            assert [row["train_loss"], row["test_loss"]] == pytest.approx([alone.train_loss, alone.test_loss], rel=2e-3)
            place = found.curves.steps <= row["steps"]
            ours = found.curves.losses[row["index"], place]
            assert ours == pytest.approx([alone.losses[s - 1] for s in found.curves.steps[place]], rel=2e-3)
            assert row["best_loss"] == pytest.approx(min(alone.losses), rel=2e-3)


def test_a_file_gives_each_seed_its_rows(here):
    (here / "points.csv").write_text("a,y,z\n" + "".join(f"{i},{i * i},{-i}\n" for i in range(20)))
    options = SMALL | {"target": "points.csv"}
    found = sweep(options, {"column": "y|z", "seed": "0:2", "inputs": ["a"]})
    assert found.directory == Path("runs/sweep-points-y")
    for row in found.rows:
        config = configure(options | {name: row[name] for name in ("column", "seed", "inputs")})
        assert row["train_loss"] == pytest.approx(run(config, Path(f"m{row['index']}")).fit.train_loss, rel=2e-3)


FILES = {  # options of a file with numbers and words
    "classes": {"column": "kind", "inputs": "a,b"},
    "several targets": {"column": "a,b", "inputs": "c", "validation_points": 0.2},
    "categories that some seeds lack": {"column": "b", "inputs": "a,word", "categorical": "one-hot"},
    "embeddings": {"column": "b", "inputs": "a,word", "categorical": "embedding", "loss": "mae"},
}


@pytest.mark.parametrize("name", FILES)
def test_members_of_a_file_equal_their_runs(here, name):
    lines = [f"{i},{i * i % 7},{-i},{'rare' if i == 3 else 'uvw'[i % 3]},{'pqr'[i % 3]}" for i in range(24)]
    (here / "points.csv").write_text("\n".join(["a,b,c,word,kind", *lines, ""]))
    options = {"target": "points.csv", "hidden": "4", "steps": 30} | FILES[name]
    space = {"seed": "0:6", "learning_rate": [0.01, 0.02]}
    found = sweep(options, space, out=Path("all"))
    groups = len(list(Path("all/checkpoints").iterdir()))
    assert groups > 1 if name.startswith("categories") else groups >= 1
    for row in found.rows[::3]:
        config = configure(options | {name: row[name] for name in ("seed", "learning_rate")})
        alone = run(config, Path(f"member{row['index']}")).fit
        assert [row["train_loss"], row["test_loss"]] == pytest.approx([alone.train_loss, alone.test_loss], rel=2e-3)
    loaded = load_run("all/best")
    compared = [row.get("validation_loss", row["test_loss"]) for row in found.rows]
    assert found.best == found.rows[compared.index(min(compared))]
    assert ("accuracy" in loaded.result) is (name == "classes")


@pytest.mark.parametrize("rates", [[0.01, 1e38, 0.05], [0.01, 0.02, 0.05], [0.01, 1e5, 0.05]])
def test_the_bits_of_a_member_do_not_depend_on_the_values_of_the_others(rates):
    options = SMALL | {"optimizer": "sgd", "schedule": "constant"}
    others = sweep(options, {"learning_rate": [0.01, 0.05]}, out=Path("others")).rows
    found = sweep(options, {"learning_rate": rates}, out=Path("with")).rows
    assert [numbers(found[0]), numbers(found[2])] == list(map(numbers, others))
    assert (found[1]["status"] == "diverged") is (rates[1] > 1)


@pytest.mark.compile
def test_members_of_a_compiled_sweep(monkeypatch):
    """One group in two chunks: as single fits, without influence on each other, and resumed with the same bits."""
    monkeypatch.setattr(_group, "MAX_WINDOW", 50)
    options = SMALL | {"optimizer": "sgd", "batch_size": 30, "steps": 120, "schedule": "constant"}
    rates = [0.02 + 0.001 * i for i in range(70)]
    broken = [1e38 if i in (3, 66) else rate for i, rate in enumerate(rates)]
    whole = sweep(options, {"learning_rate": rates}, out=Path("whole"))
    others = sweep(options, {"learning_rate": broken}, out=Path("broken"))
    assert [row["index"] for row in others.rows if row["status"] == "diverged"] == [3, 66]
    kept = [i for i in range(70) if i not in (3, 66)]
    assert [others.rows[i] for i in kept] == [whole.rows[i] for i in kept]
    for i in (0, 69):
        alone = run(configure(options | {"learning_rate": rates[i]}), Path(f"alone{i}")).fit
        assert whole.rows[i]["train_loss"] == pytest.approx(alone.train_loss, rel=1e-2)
    assert sweep(options, {"learning_rate": rates}, out=Path("stopped"), watch=stopping_after(1)).code == 130
    assert resume_sweep("stopped").code == 0
    assert bits("stopped") == bits("whole")


@pytest.mark.parametrize("size", [7, proof(10), 40])
def test_windows_do_not_change_the_batches(monkeypatch, size):
    options = SMALL | {"batch_size": size}
    sweep(options, {"seed": "0:2"}, out=Path("whole"))
    for length in (1, 3):
        monkeypatch.setattr(_group, "MAX_WINDOW", length)
        sweep(options, {"seed": "0:2"}, out=Path(f"windows{length}"), watch=stopping_after(4))
        resume_sweep(f"windows{length}")
        assert bits(f"windows{length}") == bits("whole")


def test_a_chunk_of_frozen_members_is_passed_over(monkeypatch):
    monkeypatch.setattr(_group, "WIDTHS", (2,))
    monkeypatch.setattr(_group, "MAX_WINDOW", 4)
    options = SMALL | {"batch_size": 7, "optimizer": "sgd", "schedule": "constant"}
    alone = sweep(options, {"learning_rate": [0.01, 0.02]}, out=Path("alone"))
    found = sweep(options, {"learning_rate": [1e37, 1e38, 0.01, 0.02]}, out=Path("all"))
    assert found.counts() == {"diverged": 2, "done": 2}
    assert list(map(numbers, found.rows[2:])) == list(map(numbers, alone.rows))
    assert np.array_equal(found.curves.losses[2:], alone.curves.losses)


def test_a_member_stops_when_its_loss_no_longer_falls():
    options = SMALL | {"optimizer": "sgd", "schedule": "constant", "steps": 100}
    plain = sweep(options, {"learning_rate": [1e-3, 1.2]}, out=Path("plain"))
    found = sweep(options, {"learning_rate": [1e-3, 1.2]}, out=Path("early"), stop_early=4)
    losses = plain.curves.losses[1]
    waited, least = 0, np.inf
    for steps, loss in enumerate(losses, start=1):  # noqa: B007
        waited, least = (0, loss) if loss < least else (waited + 1, least)
        if waited == 4:
            break
    assert (found.rows[1]["status"], found.rows[1]["steps"]) == ("stopped", steps)
    assert steps < 100 and found.rows[1]["best_loss"] == least
    assert found.rows[0] == plain.rows[0]
    assert (
        np.array_equal(found.curves.losses[1, :steps], losses[:steps])
        and np.isnan(found.curves.losses[1, steps:]).all()
    )


def test_a_group_ends_when_all_members_have_stopped(monkeypatch):
    monkeypatch.setattr(_group, "MAX_WINDOW", 10)
    seen = []

    @contextlib.contextmanager
    def watch(threads):
        yield SweepWatcher(seen.append, lambda: 0)

    options = SMALL | {"optimizer": "sgd", "steps": 100, "schedule": "constant"}
    found = sweep(options, {"learning_rate": [1.2, 1e38]}, stop_early=3, watch=watch)
    assert {row["status"] for row in found.rows} <= {"stopped", "diverged"}
    assert seen[-1].step < 100 and seen[-1].running == 0
    assert (seen[-1].finished, seen[-1].failed) == (2, found.counts()["diverged"])


def test_the_folder(listing, real_pictures):
    found = sweep(SMALL, SPACE)
    folder = Path("runs/sweep-2-sin-x-2-pi")
    assert found.directory == folder
    files = ["best", "checkpoints", "config.json", "coordinates.png", "curves.npz", "curves.parquet"]
    assert listing(folder) == [*files, "curves.png", "losses.png", "result.json", "results.jsonl", "results.parquet"]
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert lines == found.rows == pq.read_table(folder / "results.parquet").to_pylist()
    assert [*lines[0]] == ["index", "learning_rate", "seed", "status", "steps", "train_loss", "test_loss", "best_loss"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["kind"], config["torch"], len(config["sha256"])) == ("sweep", torch.__version__, 64)
    assert json.loads((folder / "result.json").read_text())["members"] == {"done": 6}
    assert np.load(folder / "curves.npz")["losses"].shape == (6, 40)
    assert len(repr(found).splitlines()) <= 12 and "member" in repr(found)


def test_the_best_member_is_a_run():
    found = sweep(SMALL, SPACE, out=Path("all"))
    losses = [row["test_loss"] for row in found.rows]
    assert found.best == found.rows[losses.index(min(losses))]
    loaded = load_run("all/best")
    alone = run(configure(SMALL | {name: found.best[name] for name in ("learning_rate", "seed")}), Path("alone"))
    assert loaded.config == load_run("alone").config
    assert loaded.result["test_loss"] == pytest.approx(alone.fit.test_loss, rel=2e-3)
    x = torch.linspace(0, 6, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(loaded.model(x), load_run("alone").model(x), rtol=2e-3, atol=1e-3)
    (Path("x.csv")).write_text("x\n1\n2\n")
    assert runs.predict("all/best", "x.csv", "predicted.csv") == 2
    assert runs.info("all")["runs"] == 6 and [listed.status for listed in runs.list_runs(".")].count("sweep") == 1


def test_every_member_diverges():
    found = sweep(SMALL | {"optimizer": "sgd", "schedule": "constant"}, {"learning_rate": [1e37, 1e38]})
    assert (found.code, found.status, found.counts()) == (1, "diverged", {"diverged": 2})


def stopping_after(windows, number=signal.SIGINT):
    @contextlib.contextmanager
    def watch(threads):
        seen = []
        yield SweepWatcher(seen.append, lambda: number if len(seen) >= windows else 0)

    return watch


def kill_after(windows):
    @contextlib.contextmanager
    def watch(threads):
        seen = []

        def report(progress):
            seen.append(progress)
            if len(seen) == windows:
                os.kill(os.getpid(), signal.SIGKILL)

        yield SweepWatcher(report, lambda: 0)

    return watch


RESUMED = {"learning_rate": [0.01, 0.05], "hidden": "3|4"}  # two groups of four windows


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(_group, "MAX_WINDOW", 10)


@pytest.mark.parametrize("count", daily(range(9), 2))
def test_a_resumed_sweep_has_the_bits_of_an_uninterrupted_one(windows, count):
    sweep(SMALL, RESUMED, out=Path("whole"))
    stopped = sweep(SMALL, RESUMED, out=Path("stopped"), watch=stopping_after(count))
    if count == 8:
        assert stopped.code == 0
        return
    assert (stopped.code, stopped.status) == (130, "interrupted")
    path = Path("stopped/result.json")
    before = json.loads(path.read_text())
    assert before["status"] == "interrupted"
    assert sum(stopped.counts().values()) == sum(before["members"].values()) == 4
    assert stopped.counts().get("not begun", 0) == 4 - len(stopped.rows) == (2 if count < 4 else 0)
    assert runs.info("stopped")["members"] == before["members"]
    path.write_text(json.dumps(before | {"seconds": 1000.0}))
    resumed = resume_sweep("stopped")
    assert (resumed.code, resumed.counts()) == (0, {"done": 4})
    assert 1000 < resumed.seconds == json.loads(path.read_text())["seconds"] < 1900
    assert bits("stopped") == bits("whole")


@pytest.mark.parametrize("count", [1, proof(3), 5, proof(8)])
def test_a_killed_sweep_is_resumed_from_its_newest_checkpoints(windows, count):
    options = SMALL | {"checkpoint_every": 15}
    sweep(options, RESUMED, out=Path("whole"))
    process = multiprocessing.get_context("fork").Process(
        target=sweep, args=(options, RESUMED), kwargs={"out": Path("killed"), "watch": kill_after(count)}
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert runs.is_sweep_folder("killed")
    assert resume_sweep("killed").code == 0
    assert bits("killed") == bits("whole")


def test_finished_groups_are_not_run_again(windows):
    sweep(SMALL, RESUMED, out=Path("stopped"), watch=stopping_after(5))
    seen = []

    @contextlib.contextmanager
    def watch(threads):
        yield SweepWatcher(seen.append, lambda: 0)

    resume_sweep("stopped", watch)
    assert [(progress.group, progress.step) for progress in seen] == [(1, 20), (1, 30), (1, 40)]


CHANGES = {
    "configuration": ('"seed": 5', '"seed": 6', "its sha256 differs"),
    "no sweep": ('"sweep": {', '"swoop": {', "wanted the configuration of a sweep"),
    "no JSON": ("{", "", "not the JSON that `torchpure sweep` writes"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_sweep_is_not_resumed(windows, name):
    sweep(SMALL | {"seed": 5}, RESUMED, out=Path("all"), watch=stopping_after(1))
    old, new, message = CHANGES[name]
    text = Path("all/config.json").read_text()
    Path("all/config.json").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        resume_sweep("all")


def test_what_cannot_be_resumed(here, windows):
    sweep(SMALL, {"seed": "0:2"}, out=Path("all"))
    with pytest.raises(InputError, match="the sweep is done; wanted one that was interrupted or killed"):
        resume_sweep("all")
    (here / "points.csv").write_text("x,y\n" + "".join(f"{i},{i * i}\n" for i in range(10)))
    options = SMALL | {"target": "points.csv", "column": "y"}
    sweep(options, {"seed": "0:2"}, out=Path("file"), watch=stopping_after(1))
    (here / "points.csv").write_text("x,y\n" + "".join(f"{i},{i}\n" for i in range(10)))
    with pytest.raises(InputError, match="points.csv: has changed since the sweep"):
        resume_sweep("file")


def test_a_sweep_that_cannot_start_leaves_nothing(here, listing):
    for options, space in (
        (SMALL, {"hidden": "4|99999"}),
        (SMALL | {"target": "log(-x)"}, SPACE),
        (SMALL, {"hidden": "4|4096,4096,4096,4096,4096"}),
    ):
        with pytest.raises(InputError):
            sweep(options, space)
    assert listing(here) == []


def test_a_sweep_by_optuna_is_resumed_with_the_same_points(windows):
    pytest.importorskip("optuna")
    space, trials = {"learning_rate": "1e-3:1:log", "hidden": "3|4"}, 20
    whole = sweep(SMALL, space, sampler="optuna", trials=trials, out=Path("whole"))
    assert [row["index"] for row in whole.rows] == [*range(20)]
    sweep(SMALL, space, sampler="optuna", trials=trials, out=Path("stopped"), watch=stopping_after(17))
    assert resume_sweep("stopped").code == 0
    assert bits("stopped") == bits("whole")


def test_a_sweep_that_goes_on_elsewhere_is_not_touched():
    sweep(SMALL, RESUMED, out=Path("stopped"), watch=stopping_after(1))
    before = Path("stopped/results.jsonl").read_bytes()
    with Checkpointer("stopped/checkpoints"), pytest.raises(CheckpointError, match=r"this run goes on in process \d+"):
        resume_sweep("stopped")
    assert Path("stopped/results.jsonl").read_bytes() == before

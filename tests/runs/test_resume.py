"""Runs that are interrupted, killed or changed meanwhile, and then resumed."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from array import array
from pathlib import Path

import pytest

from torchpure.cli import main
from torchpure.errors import CheckpointError, InputError
from torchpure.runs import Watcher, configure, read_run, resume, run
from torchpure.runs._log import Log
from torchpure.train import Checkpointer

pytestmark = pytest.mark.usefixtures("here")
SMALL = {"target": "2*sin(x + 2*pi)", "hidden": "4", "steps": 60, "checkpoint_every": 7}
OPTIONS = {
    "adam": {},
    "article": {"preset": "article", "hidden": None},
    "momentum, float64": {"optimizer": "sgd", "dtype": "float64"},
    "at the end only": {"checkpoint_every": 0},
    "minibatches": {"batch_size": 7, "validation_points": 5, "loss": "mae"},
    "diverges": {"optimizer": "sgd", "learning_rate": 100.0},
}


def bits(folder):
    return {name: (Path(folder) / name).read_bytes() for name in ("metrics.jsonl", "params.safetensors", "config.json")}


def stopping_at(step, number=signal.SIGINT):
    seen = []

    @contextlib.contextmanager
    def watch(steps, threads):
        yield Watcher(lambda at, loss: seen.append(at), lambda: number if seen and seen[-1] >= step else 0)

    return watch


@pytest.mark.parametrize("step", [1, 7, 20, 59])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(name, step):
    config = configure(SMALL | OPTIONS[name])
    whole = run(config, Path("whole"))
    stopped = run(config, Path("stopped"), stopping_at(step))
    if stopped.fit.code == 1:  # it diverged before
        assert bits("stopped") == bits("whole")
        return
    assert (stopped.fit.code, stopped.fit.steps) == (130, step)
    assert resume("stopped").fit.code == whole.fit.code
    assert bits("stopped") == bits("whole")


def kill_at(step):
    @contextlib.contextmanager
    def watch(steps, threads):
        def report(at, loss):
            if at == step:
                os.kill(os.getpid(), signal.SIGKILL)

        yield Watcher(report, lambda: 0)

    return watch


def in_a_child(function, *args):
    """Call a function in a forked process, which may die."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


@pytest.mark.parametrize("step", [1, 6, 15, 60])
def test_a_killed_run_is_resumed_from_its_newest_checkpoint(step):
    config = configure(SMALL)
    run(config, Path("whole"))
    process = in_a_child(run, config, Path("killed"), kill_at(step))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert main(["resume", "killed", "--quiet"]) == 0
    assert bits("killed") == bits("whole")


def kill_and_resume(config, folder, moments):
    """Start a run, kill it after each of these seconds, and let it end then; return the number of kills."""
    kills = 0
    for seconds in moments:
        process = in_a_child(*go_on(config, folder))
        process.join(seconds)
        if process.exitcode == 0:
            return kills
        process.kill()
        process.join()
        kills += 1
    process = in_a_child(*go_on(config, folder))
    process.join()
    assert process.exitcode == 0
    return kills


def go_on(config, folder):
    if not (folder / "config.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # killed before it could be resumed
        return run, config, folder
    return (str, "") if read_run(folder).status == "done" else (resume, folder)


@pytest.mark.proof
def test_200_random_kills(here):
    """At any moment: while it trains, while a checkpoint or the last files are written; some are killed many times."""
    config = configure(SMALL | {"steps": 600, "checkpoint_every": 20})
    start = time.monotonic()
    process = in_a_child(run, config, Path("whole"))
    process.join()
    seconds = time.monotonic() - start
    draw = random.Random(0)
    kills = number = 0
    while kills < 200:
        folder = Path(f"killed{number}")
        kills += kill_and_resume(config, folder, [draw.uniform(0, seconds) for _ in range(draw.choice([1, 1, 3]))])
        assert bits(folder) == bits("whole"), number
        shutil.rmtree(folder)
        number += 1
    print(f"{kills} kills in {number} runs: each has the bits of the run that was not killed")


CHANGES = {  # of a run that was interrupted: (file, text, its replacement, or None to cut the file), message
    "cut metrics": ("run/metrics.jsonl", None, None, "the file was changed or cut"),
    "changed metrics": ("run/metrics.jsonl", '"step": 3', '"step": 4', "wanted the line of step 3"),
    "unknown option": ("run/config.json", '"seed"', '"sead"', "sead"),
    "another network": ("run/config.json", "\n      4\n", "\n      5\n", "wanted"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_run_is_refused_in_one_line(name, capsys):
    file, old, new, message = CHANGES[name]
    run(configure(SMALL), Path("run"), stopping_at(20))
    text = Path(file).read_text()
    Path(file).write_text(text[:80] if old is None else text.replace(old, new))
    assert Path(file).read_text() != text
    assert main(["resume", "run"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


def test_what_cannot_be_resumed(capsys):
    run(configure(SMALL), Path("done"))
    with pytest.raises(InputError, match=r"the run is done; wanted one .* killed; to train longer, name more --steps"):
        resume("done")
    assert main(["resume", "don"]) == 2
    assert "done" in capsys.readouterr().err  # the nearest name
    options = {"target": "x", "optimizer": "sgd", "schedule": "constant", "learning_rate": 1e38, "steps": 20}
    assert run(configure(options), Path("diverged")).fit.code == 1
    with pytest.raises(InputError, match=r"is diverged; .* fit again with a smaller --learning-rate"):
        resume("diverged")
    assert main(["resume", "."]) == 2
    assert capsys.readouterr().err == "torchpure: .: is a folder of runs; name one, such as `diverged`\n"


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts():
    run(configure(SMALL), Path("run"), stopping_at(20))
    path = Path("run/result.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 1000.0}))
    finished = resume("run")
    assert 1000 < finished.fit.seconds < 1900
    assert json.loads(path.read_text())["seconds"] == finished.fit.seconds


def test_a_file_that_changed_since_is_refused(here):
    (here / "points.csv").write_text("x,y\n" + "".join(f"{i},{i * i}\n" for i in range(10)))
    run(configure({"target": "points.csv", "column": "y", "steps": 30}), Path("run"), stopping_at(5))
    (here / "points.csv").write_text("x,y\n" + "".join(f"{i},{i}\n" for i in range(10)))
    with pytest.raises(InputError, match=r"points.csv: has changed since the run"):
        resume("run")


def test_a_run_that_goes_on_is_not_resumed():
    run(configure(SMALL), Path("run"), stopping_at(20))
    with (
        Checkpointer("run/checkpoints"),
        pytest.raises(CheckpointError, match=rf"run: this run goes on in process {os.getpid()}; wait"),
    ):
        resume("run")


def test_metrics_are_on_the_disk_while_the_run_goes_on():
    seen = []

    @contextlib.contextmanager
    def watch(steps, threads):
        def report(step, loss):
            last = Path("run/metrics.jsonl").read_text().splitlines()[-1]
            seen.append(json.loads(last) == {"step": step, "loss": loss})

        yield Watcher(report, lambda: 0)

    run(configure(SMALL), Path("run"), watch)
    assert seen == [True] * 60


def test_a_line_of_the_metrics_that_is_written_in_part_is_an_error():
    class Full:
        def write(self, data):
            return len(data) - 3

    with pytest.raises(OSError, match="No space left on device"):
        Log(Full(), array("d")).end({"status": "done"})

"""Law: a run goes on, on any number of processes, as if it had never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from resume_cases import OPTIONS, TRAIN, resume_run
from safetensors.torch import load_file
from sharded_cases import run_of
from torch.testing import assert_close

import torchpure as tp

pytestmark = pytest.mark.dist


def same(ours, wanted):
    assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


def found_in(folder):
    """Return the losses and the parameters of a run."""
    *steps, last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert last["steps"] == len(steps) and (folder / "result.json").exists()
    return [step["loss"] for step in steps], load_file(folder / "params.safetensors")


@pytest.mark.parametrize("name", TRAIN)
def test_law_a_resumed_training_is_the_same_on_any_number_of_processes(pair, tmp_path, name):
    wanted = TRAIN[name](8)
    pair.results("train", name, 4, tmp_path / "both")
    shutil.copytree(tmp_path / "both", tmp_path / "alone")
    TRAIN[name](4, checkpoint=tmp_path / "one")
    same(TRAIN[name](8, checkpoint=tmp_path / "alone", resume=True), wanted)
    for folder in ("both", "one"):
        for ours in pair.results("train", name, 8, tmp_path / folder, True):
            same(ours, wanted)


def test_a_saved_run_goes_on_with_parts(pair, tmp_path):
    for ours in pair.results("other layout", tmp_path / "run"):
        same(ours, TRAIN["fit"](8))


def test_losses_of_parameters_in_parts_are_plain_tensors(pair):
    for plain, history in pair.results("whole losses"):
        assert plain
        same(history, TRAIN["fit"](3)[2])


def test_law_a_resumed_run_is_the_same_on_any_number_of_processes(pair, tmp_path):
    both, alone = tmp_path / "both", tmp_path / "alone"
    pair.results("run on mesh", both)
    shutil.copytree(both, alone)
    assert resume_run(alone, 30) == (30, 0)
    assert pair.results("resume run", both, 30) == [(30, 0)] * 2
    same(found_in(both), found_in(alone))
    assert "--mesh data=2" in json.loads((both / "config.json").read_text())["command"]


def test_processes_that_divide_no_batch_cannot_go_on(pair, tmp_path):
    run_of("sin(x)", tmp_path / "run", **OPTIONS | {"batch_size": "5"})
    for kind, text in pair.run("resume together", tmp_path / "run", 30):
        assert kind == "raised" and "--batch-size: 2 processes take equal parts of 5 points" in text


def torchrun(count, *arguments):
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*program, "-m", "torchpure", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.proof
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_a_run_of_torchrun_and_more_processes_go_on(tmp_path, number):
    options = ["--dtype", "float64", "--schedule", "constant", "--batch-size", "20", "--quiet"]
    program = torchrun(
        2, "fit", "sin(x)", "--mesh", "data=2", "--steps", "100000", *options, "--out", str(tmp_path / "run")
    )
    deadline = time.monotonic() + 120
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    program.send_signal(number)
    printed, _ = program.communicate(timeout=120)
    status = json.loads(log.read_text().splitlines()[-1])
    word = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}[number]
    assert status["status"] == word and f"{word} after step {status['steps']}; go on with" in printed
    steps = status["steps"] + 10
    shutil.copytree(tmp_path / "run", tmp_path / "more")
    with tp.train.Checkpointer(tmp_path / "run" / "checkpoints") as saved:
        assert saved.latest() == status["steps"]
    whole = ["fit", "sin(x)", "--steps", str(steps), *options, "--out", str(tmp_path / "whole")]
    subprocess.run([sys.executable, "-m", "torchpure", *whole], check=True, timeout=300)
    _shorten(tmp_path / "more", steps)
    more = torchrun(4, "resume", str(tmp_path / "more"), "--quiet")
    printed, _ = more.communicate(timeout=300)
    assert more.returncode == 0, printed
    same(found_in(tmp_path / "more"), found_in(tmp_path / "whole"))


def _shorten(folder, steps):
    """Let an interrupted run end soon."""
    path = folder / "config.json"
    description = json.loads(path.read_text())
    description["config"]["steps"] = steps
    path.write_text(json.dumps(description))

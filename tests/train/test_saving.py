"""Runs that save: what ends them, what they cannot save, and folders that are not theirs."""

import csv
import functools
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from daily import daily

import torchpure as tp
from torchpure.checkpoints import describe
from torchpure.errors import CheckpointError, InputError
from torchpure.train import Checkpointer, callbacks, loop
from torchpure.train.callbacks import Callback

ABANDONED = """
import sys, torch, torchpure as tp
folder, how = sys.argv[1:]
checkpoint = tp.train.Checkpointer(folder, every=1000) if "Checkpointer" in how else folder
steps = tp.train.loop(
    lambda p, x: ((p - x) ** 2).mean(), torch.zeros(1), [(torch.ones(2) * i,) for i in range(50)],
    tp.optim.adam(1e-2), checkpoint=checkpoint
)
for progress in steps:
    if progress.step == 20:
        sys.exit(3) if "exit" in how else [][0]
"""


@pytest.mark.parametrize("how", daily(["exit", "error", "exit, Checkpointer", "error, Checkpointer"], 3))
def test_a_loop_that_is_alive_at_the_end_of_the_interpreter_saves_its_position(how, tmp_path):
    command = [sys.executable, "-c", ABANDONED, str(tmp_path / "run"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == (3 if "exit" in how else 1)
    assert "torchpure" not in done.stderr
    assert describe(tmp_path / "run").metadata["step"] == 19  # the report of step 20 was not taken in


def test_a_loop_that_is_alive_when_its_checkpointer_closes_saves_its_position(tmp_path):
    with Checkpointer(tmp_path, every=1000) as checkpointer:
        steps = run_loop(checkpointer)
        for progress in steps:
            if progress.step == 5:
                break
    assert describe(tmp_path).metadata["step"] == 4
    with pytest.raises(CheckpointError, match="closed before the end of the run"):
        next(steps)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_of_a_process_that_runs_saves_nothing(tmp_path):
    steps = run_loop(tmp_path)
    [next(steps) for _ in range(5)]
    child = os.fork()
    if child == 0:
        steps.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not (tmp_path / "step-00000005").exists()
    steps.close()
    assert describe(tmp_path).metadata["step"] == 5


def run_loop(checkpoint):
    batches = [(torch.full((2,), float(i)),) for i in range(20)]
    return loop(lambda p, x: ((p - x) ** 2).mean(), torch.zeros(1), batches, tp.optim.sgd(0.1), checkpoint=checkpoint)


def fit_mean(checkpoint, callback=None, data=None, **options):
    data = (torch.linspace(0, 1, 6),) if data is None else data
    return tp.fit(
        lambda p, x: ((p - x) ** 2).mean(), data, optimizer=tp.optim.sgd(0.1), checkpoint=checkpoint,
        callback=callback, **{"params": torch.tensor(0.0), "steps": 10, "every": 5, **options},
    )  # fmt: skip


CHANGING = {  # init and update of a callback's state, and what the error says
    "a list that grows": (list, lambda s, p: [*s, float(p.loss)], "`callback_state.0`: wanted nothing, got leaf"),
    "a tensor that grows": (
        lambda: torch.zeros(0),
        lambda s, p: torch.cat([s, p.losses]),
        r"wanted float32 of shape \(0,\)",
    ),
    "an integer that becomes a float": (lambda: 0, lambda s, p: s + 0.5, "wanted int, got float"),
    "None that becomes a dict": (lambda: None, lambda s, p: {"a": 1}, "wanted None, got dict"),
    "a NumPy array": (lambda: np.zeros(2), lambda s, p: s, "is a numpy.ndarray"),
    "an object": (lambda: object(), lambda s, p: s, "is a object"),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_callback_state_that_could_not_be_resumed_is_refused_at_once(name, tmp_path):
    init, update, message = CHANGING[name]
    callback = Callback(lambda params: init(), lambda state, progress: (update(state, progress), False))
    with Checkpointer(tmp_path, every=1000) as checkpointer, pytest.raises(InputError, match=f"^fit: .*{message}"):
        fit_mean(checkpointer, callback, steps=10_000, jit=False)
    assert fit_mean(None, callback).history.shape == (10,)


def test_a_state_that_changes_later_is_refused_at_the_next_save(tmp_path):
    callback = Callback(lambda params: 0, lambda state, progress: (0 if progress.step < 8 else "late", False))
    with pytest.raises(InputError, match="wanted int, got str"):
        fit_mean(tmp_path, callback, every=1)
    assert fit_mean(tmp_path, Callback(lambda params: 0, lambda state, progress: (0, False)), every=1, resume=True)


WRONG = {
    "another metric": (
        lambda path: Checkpointer(path, best=("accuracy", "max")),
        ValueError,
        "saves the metric 'loss'",
    ),
    "no folder": (lambda path: 3, TypeError, "wanted a folder or a Checkpointer, got int 3"),
    "a class": (lambda path: Checkpointer, TypeError, "wanted a folder or a Checkpointer"),
    "an empty string": (lambda path: "", InputError, "got an empty string"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_place_for_checkpoints_is_refused_before_the_first_step(name, tmp_path):
    make, kind, message = WRONG[name]

    def never(progress):
        raise AssertionError

    with pytest.raises(kind, match=message):
        fit_mean(make(tmp_path), never)


@pytest.mark.parametrize("path", ["", b"name", 3, None])
@pytest.mark.parametrize("name", ["save", "restore", "describe", "Checkpointer"])
def test_a_path_is_a_string_or_a_path(name, path):
    call = {"save": lambda path: tp.save(path, {}), "restore": tp.restore, "describe": describe}.get(name, Checkpointer)
    with pytest.raises((TypeError, InputError), match=f"^{name}: path: wanted"):
        call(path)


def test_data_of_other_names_and_data_without_a_hash_are_refused(tmp_path):
    one, two = torch.ones(3), torch.zeros(3)

    def run(data, **options):
        return tp.fit(
            lambda p, batch: ((p - batch["a"]) ** 2 + batch["b"]).mean(), data, params=torch.tensor(0.0), steps=3,
            optimizer=tp.optim.sgd(0.1), checkpoint=tmp_path / "run", **options,
        )  # fmt: skip

    run({"a": one, "b": two})
    with pytest.raises(ValueError, match="data differs"):
        run({"b": one, "a": two}, resume=True)
    with pytest.raises(TypeError, match="wanted data in strided tensors, got .* layout torch.sparse_coo: pass an iter"):
        fit_mean(tmp_path / "sparse", data=(one.to_sparse(),))


@pytest.mark.parametrize("left", [None, b"", b"step,loss,mean_loss\n5,1.0,1.0\n10,0."])
def test_a_log_that_was_deleted_or_cut_goes_on_with_whole_lines(left, tmp_path):
    path = tmp_path / "log.csv"
    fit_mean(tmp_path / "run", callbacks.csv_log(path))
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)
    fit_mean(tmp_path / "run", callbacks.csv_log(path), steps=20, resume=True)
    rows = [*csv.reader(path.read_text().splitlines())]
    assert rows[0] == ["step", "loss", "mean_loss"]
    assert [row[0] for row in rows[1:]] == [*(["5"] if left else []), "15", "20"]


def test_names_of_metrics_are_quoted_and_step_is_no_name(tmp_path):
    names = ["a,b", 'a "b"\nc', "ü"]
    fit_mean(None, callbacks.csv_log(tmp_path / "log.csv", metrics={name: lambda progress: 1 for name in names}))
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = [*csv.reader(file)]
    assert rows[0] == ["step", "loss", "mean_loss", *names]
    assert {len(row) for row in rows} == {6}
    for log in (callbacks.csv_log, callbacks.jsonl_log):
        with pytest.raises(ValueError, match='"step" is a name of its own'):
            log(tmp_path / "log", metrics={"step": lambda progress: 1})


@pytest.mark.parametrize(
    "name", ["early_stopping", "gradient_norms", "parameter_ema", "csv_log", "best_so_far", "chain"]
)
@pytest.mark.parametrize("form", [lambda one: one, lambda one: [one]])
def test_a_callback_that_was_not_called_is_refused_before_the_first_step(name, form):
    def never(params, x):
        raise AssertionError

    with pytest.raises(TypeError, match=r"call it, as in early_stopping\(10\)"):
        tp.fit(
            never, (torch.ones(2),), params=torch.tensor(0.0), optimizer=tp.optim.sgd(0.1), steps=1,
            callback=form(getattr(callbacks, name)),
        )  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_parameters_that_require_grad_are_saved(tmp_path):
    start = torch.tensor(0.0, requires_grad=True)
    fit_mean(tmp_path, params=start)
    assert not tp.restore(tmp_path)["params"].requires_grad


def returning(result):
    return Callback(lambda params: 0, lambda state, progress: result)


RETURNED = {
    "nothing": (returning(None), r"must return \(state, stop\), got None"),
    "three values": (returning((1, 2, 3)), r"must return \(state, stop\), got tuple of 3"),
    "several truths": (returning((0, torch.ones(2))), "wanted one true or false value from a callback"),
    "a function's several truths": (lambda progress: torch.ones(2), "wanted one true or false value from a callback"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_what_a_callback_returns_is_checked(name):
    callback, message = RETURNED[name]
    for given in (callback, [callback]):
        with pytest.raises(TypeError, match=message):
            fit_mean(None, given)


def test_a_callback_needs_no_module():
    seen = []
    callback = types.FunctionType((lambda progress: seen.append(progress.step)).__code__, {}, closure=(cell(seen),))
    callback.__module__ = None
    fit_mean(None, callback)
    fit_mean(None, functools.partial(seen.append))
    assert seen[:2] == [5, 10]
    assert len(seen) == 4


def cell(value):
    return (lambda: value).__closure__[0]

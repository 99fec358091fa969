"""Saved runs, stopped anywhere and resumed: equal bit for bit to the run that was not stopped."""

import itertools

import pytest
import torch
from daily import proof
from torch import nn

import torchpure as tp
from torchpure import random
from torchpure.errors import CheckpointError, StructureError, TransformError
from torchpure.train import Checkpointer, loop, mean_square

X = torch.linspace(-1, 1, 22)[:, None]
Y = torch.sin(3 * X)


def make_network():
    module = nn.Sequential(nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 1))
    net = tp.functional(module)
    return tp.functional(net.to_module(*net.init(random.key(2))))


NET = make_network()
PARTS = [(X[i::3], Y[i::3]) for i in range(3)]


def equal(one, other):
    assert tp.tree.structure(one) == tp.tree.structure(other)
    for ours, theirs in zip(tp.tree.leaves(one), tp.tree.leaves(other), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


class Stopped(Exception):
    """Raised by a test in the middle of a run."""


RUNS = {  # arguments of fit
    "all rows": ((X, Y), {}),
    "all rows, every": ((X, Y), {"every": 7}),
    "minibatches": ((X, Y), {"batch_size": 4}),
    "minibatches, every": ((X, Y), {"batch_size": 5, "every": 6}),
    "batches": (PARTS, {}),
    "batches, every": (PARTS, {"every": 4}),
}


def run_fit(data, options, steps=40, **more):
    return tp.fit(
        NET, data, optimizer=tp.optim.adamw(0.01), steps=steps, key=random.key(3), **{"jit": False, **options, **more}
    )


@pytest.mark.parametrize("stop", [1, 2, 5])
@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_equals_the_uninterrupted_one(name, stop, tmp_path):
    data, options = RUNS[name]
    options = {"checkpoint": Checkpointer(tmp_path / "whole", every=7), **options}
    whole = run_fit(data, options)
    calls = itertools.count(1)

    def interrupt(progress):
        if next(calls) == stop:
            raise Stopped

    folder = Checkpointer(tmp_path / "run", every=7)
    with pytest.raises(Stopped):
        run_fit(data, options, checkpoint=folder, callback=interrupt)
    if stop > 1:
        assert folder.latest() > 0
    resumed = run_fit(data, options, checkpoint=folder, resume=True)
    equal(whole, resumed)
    assert len(resumed.history) == 40
    equal(whole, run_fit(data, options, checkpoint=folder, resume=True))  # a finished run gives its result again


@pytest.mark.compile
@pytest.mark.parametrize("name", [proof("all rows"), "minibatches"])
def test_a_resumed_compiled_run_equals_the_uninterrupted_one(name, tmp_path):
    data, options = RUNS[name]
    options = {"jit": True, "every": 250, **options}
    whole = run_fit(data, options, steps=700)
    folder = tmp_path / "run"
    stopped = run_fit(data, options, steps=700, checkpoint=folder, callback=lambda progress: progress.step == 500)
    assert len(stopped.history) == 500
    equal(whole, run_fit(data, options, steps=700, checkpoint=folder, resume=True))


@pytest.mark.parametrize("jit", [False, True])
def test_single_steps_are_compiled_where_the_uninterrupted_run_compiles_them(jit, tmp_path, monkeypatch):
    monkeypatch.setattr("torchpure.train._steps.MIN_SINGLE_STEPS", 10)
    monkeypatch.setattr("torchpure.train._steps.jit", lambda step: lambda *args: (step(*args)[0], step(*args)[1] + 1))
    options = {"jit": jit, "every": 1}
    whole = run_fit((X, Y), options)
    assert (whole.history > 1).sum() == (30 if jit else 0)
    run_fit((X, Y), options, checkpoint=tmp_path / "run", callback=lambda progress: progress.step == 25)
    equal(whole, run_fit((X, Y), options, checkpoint=tmp_path / "run", resume=True))


def test_more_steps_go_on_from_the_end(tmp_path):
    run_fit((X, Y), {}, checkpoint=tmp_path, steps=20)
    equal(run_fit((X, Y), {"every": 20}).params, run_fit((X, Y), {}, checkpoint=tmp_path, resume=True).params)
    with pytest.raises(ValueError, match="has made 40 steps already, wanted at most steps=30"):
        run_fit((X, Y), {}, checkpoint=tmp_path, resume=True, steps=30)


def squares(p, x, y):
    return mean_square(x * p["w"] + p["b"], y)


START = {"w": torch.tensor(0.0), "b": torch.tensor(0.0)}


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_resumed_loop_equals_the_uninterrupted_one(every, stop, tmp_path):
    batches = [*PARTS] * 5

    def run(**options):
        return loop(squares, START, batches, tp.optim.adam(0.1), every=every, jit=False, **options)

    whole = [*run()]
    first = [*itertools.islice(run(checkpoint=tmp_path / "run"), stop)]
    second = [*run(checkpoint=tmp_path / "run", resume=True)]
    equal(whole, first + second)
    assert [*run(checkpoint=tmp_path / "run", resume=True)] == []


def test_an_interrupted_step_loses_only_itself(tmp_path):
    calls = itertools.count(1)

    def interrupted(p, x, y):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return squares(p, x, y)

    options = {"jit": False, "checkpoint": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        [*loop(interrupted, START, [*PARTS] * 5, tp.optim.adam(0.1), **options)]
    steps = [
        progress.step for progress in loop(squares, START, [*PARTS] * 5, tp.optim.adam(0.1), **options, resume=True)
    ]
    assert steps == [*range(6, 16)]


def test_an_error_thrown_into_a_loop_leaves_its_newest_step_unsaved(tmp_path):
    """A caller who finds a step bad does not want it saved."""
    steps = loop(
        squares, START, [*PARTS] * 5, tp.optim.adam(0.1), jit=False, checkpoint=Checkpointer(tmp_path, every=4)
    )
    assert [next(steps).step for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Stopped):
        steps.throw(Stopped)
    with Checkpointer(tmp_path) as saved:
        assert saved.latest() == 5


def test_what_does_not_fit_the_saved_run_is_named(tmp_path):
    options = {"checkpoint": tmp_path, "batch_size": 4}
    run_fit((X, Y), options, steps=8)
    with pytest.raises(ValueError, match="has a checkpoint of step 8: pass resume=True to go on from it"):
        run_fit((X, Y), options)
    with pytest.raises(ValueError, match="batch_size: saved 4, got 5"):
        run_fit((X, Y), options | {"batch_size": 5, "resume": True})
    with pytest.raises(ValueError, match="exactly: data differs. Pass"):
        run_fit((X, Y + 1), options, resume=True)
    with pytest.raises(
        StructureError, match="another optimizer or callbacks.*: `opt_state`: wanted SgdState, got AdamState"
    ):
        tp.fit(NET, (X, Y), optimizer=tp.optim.sgd(0.1), steps=9, key=random.key(3), jit=False, resume=True, **options)
    with pytest.raises(ValueError, match="resume=True needs the folder to resume from"):
        run_fit((X, Y), {"resume": True})
    with Checkpointer(tmp_path / "other") as other:
        other.save(1, {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="holds checkpoints that no run of fit has written"):
        run_fit((X, Y), options, checkpoint=tmp_path / "other", resume=True)


def test_a_run_inside_of_a_transform_is_not_saved(tmp_path):
    def train(start):
        return tp.fit(
            squares, (X, Y), params=START | {"w": start}, optimizer=tp.optim.sgd(0.1), steps=2, checkpoint=tmp_path
        ).params

    with pytest.raises(TransformError, match="checkpoint= is for a run outside of all transforms"):
        tp.vmap(train)(torch.zeros(2))


def test_two_runs_cannot_write_one_folder(tmp_path):
    with Checkpointer(tmp_path), pytest.raises(CheckpointError, match="writes there already"):
        run_fit((X, Y), {"checkpoint": tmp_path})

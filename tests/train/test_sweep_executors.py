"""Sweeps on executors: the bits of one process, workers that are lost, and errors that say what to do."""

import multiprocessing
import pickle
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
import trainings
from daily import proof

import torchpure as tp
from torchpure.errors import CheckError, CheckpointError, NonFiniteError, TransformError, WorkerError
from torchpure.train import executors, sweep
from torchpure.train.executors import pack, unpack

pytestmark = pytest.mark.dist
KEY = tp.random.key(0)
RATES = {"learning_rate": torch.linspace(0, 1, 41)}
SMALL = {"key": KEY, "jit": False, "chunk_size": 10}
TWO = [{"learning_rate": rate, "steps": steps} for steps in (2, 3) for rate in torch.logspace(-3, -1, 20).tolist()]


def spawned(workers=2):
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def processes():
    with spawned() as made:
        yield made


def assert_same_bits(ours, wanted):
    assert ours.points == wanted.points and tp.tree.structure(ours.results) == tp.tree.structure(wanted.results)
    for one, other in zip(tp.tree.leaves(ours.results), tp.tree.leaves(wanted.results), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


class Inline:
    """An executor in this process and thread."""

    def __init__(self):
        self.calls = 0

    def submit(self, fn, *args):
        self.calls += 1
        future = Future()
        future.set_result(fn(*pickle.loads(pickle.dumps(args))))
        return future


# --- the same bits ---


@pytest.mark.parametrize("width", [None, proof(1), 7, 16])
def test_law_the_bits_are_the_same_with_every_executor(processes, width):
    options = {"key": KEY, "jit": False, "chunk_size": width}
    wanted = sweep(trainings.fitted, TWO, **options)
    with ThreadPoolExecutor(2) as threads:
        for executor in (threads, Inline(), *([processes] if width == 7 else [])):
            assert_same_bits(sweep(trainings.fitted, TWO, **options, executor=executor), wanted)


@pytest.mark.compile
@pytest.mark.parametrize("count", [20, proof(3)])
def test_law_the_bits_are_the_same_when_compiled(count):
    wanted = sweep(trainings.fitted, TWO[:count], key=KEY)
    executor = Inline()
    assert_same_bits(sweep(trainings.fitted, TWO[:count], key=KEY, executor=executor), wanted)
    assert executor.calls == (2 if count == 20 else 1)


@pytest.mark.parametrize("point", [{"name": "a"}, {"learning_rate": 0.5}])
def test_members_that_are_equal_run_once(point):
    executor = Inline()
    made = sweep(lambda key, **point: torch.ones(2), [point] * 3, executor=Fake(executor), jit=False)
    assert made.results.tolist() == [[1, 1]] * 3
    assert executor.calls == 1


class Fake:
    """An executor that sends nothing."""

    def __init__(self, counter):
        self.counter = counter

    def submit(self, fn, *args):
        self.counter.calls += 1
        future = Future()
        future.set_result(fn(*args))
        return future


TREES = {
    "numbers": {"a": torch.tensor(1.5), "b": [torch.tensor([True, False]), 3, "text"], "none": None},
    "kinds": [torch.ones(2, 0), torch.arange(6).view(2, 3).T, torch.tensor([1 + 2j]).conj(), torch.ones(3).bfloat16()],
}


@pytest.mark.parametrize("name", TREES)
def test_law_unpack_inverts_pack(name):
    back = unpack(pickle.loads(pickle.dumps(pack(TREES[name]))))
    for one, other in zip(tp.tree.leaves(back), tp.tree.leaves(TREES[name]), strict=True):
        assert type(one) is type(other)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype and torch.equal(one, other)
            one.zero_()  # it can be written to


# --- lost workers and checkpoints ---


@pytest.mark.proof
@pytest.mark.parametrize("make", [lambda: spawned, lambda: executors.LocalWorkers(2)], ids=["function", "workers"])
def test_a_new_executor_takes_over_when_a_worker_is_lost(make, tmp_path):
    train = partial(trainings.fatal, folder=tmp_path)
    made = sweep(train, RATES, **SMALL, executor=make())
    assert (tmp_path / "killed").exists()
    assert_same_bits(made, sweep(trainings.number, RATES, **SMALL))


def test_finished_chunks_do_not_run_again(tmp_path):
    (tmp_path / "runs").mkdir()
    train = partial(trainings.number, folder=tmp_path / "runs")
    wanted = sweep(trainings.number, RATES, **SMALL)

    class Stops(Inline):
        def submit(self, fn, *args):
            if self.calls == 3:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(fn, *args)

    where = {"checkpoint": tmp_path / "sweep"}
    with pytest.raises(WorkerError, match="the executor takes no more tasks: cannot schedule"):
        sweep(train, RATES, **SMALL, executor=Stops(), **where)
    assert_same_bits(sweep(train, RATES, **SMALL, **where, resume=True), wanted)
    runs = len([*(tmp_path / "runs").iterdir()])
    assert_same_bits(sweep(train, RATES, **SMALL, **where, resume=True), wanted)
    assert len([*(tmp_path / "runs").iterdir()]) == runs + 1  # only the structure of the results


def test_groups_of_other_shapes_are_resumed(tmp_path):
    space = [{"learning_rate": 0.5, "width": width} for width in (2, 3, 2)]
    wide = lambda key, learning_rate, width: {f"of {width}": torch.ones(width) * learning_rate}  # noqa: E731
    for resume in (False, True):
        made = sweep(wide, space, jit=False, checkpoint=tmp_path / "sweep", resume=resume)
        assert [[*one] for one in made.results] == [["of 2"], ["of 3"], ["of 2"]]


REFUSED = {  # what changes -> message
    "nothing": ({"resume": False}, "has 5 finished chunks: pass resume=True to go on from them, or another folder"),
    "space": ({"space": {"learning_rate": torch.linspace(0, 2, 41)}}, "has another space, so it cannot go on"),
    "key": ({"key": tp.random.key(1)}, "has another key, so it cannot go on"),
    "train": ({"train": trainings.fitted}, "has another train, so it cannot go on"),
    "chunk_size": ({"chunk_size": 5}, "has another chunk_size, so it cannot go on"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_checkpoint_of_another_sweep_is_refused(name, tmp_path):
    changes, message = REFUSED[name]
    options = {"train": trainings.number, "space": RATES, **SMALL, "checkpoint": tmp_path / "sweep"}
    sweep(**options)
    with pytest.raises(ValueError, match=message):
        sweep(**{**options, "resume": True, **changes})


def test_what_a_checkpoint_can_be(tmp_path):
    with pytest.raises(ValueError, match="resume=True needs the folder to resume from"):
        sweep(trainings.number, RATES, **SMALL, resume=True)
    with pytest.raises(TypeError, match="checkpoint: wanted a folder, got int 3"):
        sweep(trainings.number, RATES, **SMALL, checkpoint=3)
    with tp.train.Checkpointer(tmp_path) as other:
        other.save(1, {"a": torch.ones(1)})
    with pytest.raises(ValueError, match="holds checkpoints that no sweep has written"):
        sweep(trainings.number, RATES, **SMALL, checkpoint=tmp_path, resume=True)
    assert issubclass(CheckpointError, OSError)


# --- errors ---


def test_errors_of_members_come_back_as_they_are(processes):
    with pytest.raises(ValueError, match="wrong") as caught:
        sweep(trainings.failing, RATES, **SMALL, executor=processes)
    (note,) = caught.value.__notes__
    assert note.startswith("sweep: members ") and "of trainings.py; in process" in note
    assert "raise ValueError" in str(caught.value.__cause__)
    with pytest.raises(
        WorkerError, match=r"members \d+ to \d+, line \d+ of trainings.py; in process .*: OwnError: own"
    ):
        sweep(partial(trainings.failing, kind="own"), RATES, **SMALL, executor=processes)
    with pytest.raises(CheckError, match="half: member 20 of vmap"):
        sweep(partial(trainings.failing, kind="check"), RATES, **SMALL, executor=processes)


@pytest.mark.parametrize("place", ["here", "there"])
def test_members_of_several_groups_are_named_by_their_number(place, processes):
    def space(kind):
        return [{"learning_rate": rate, "kind": one} for one in ("x", kind) for rate in (0.1, 0.5)]

    executor = {"executor": processes} if place == "there" else {}
    numbers = "1" if place == "here" else "[13]"  # both groups fail, and either may be the first to come back
    with pytest.raises(CheckError, match=f"half: member {numbers} of vmap"):
        sweep(trainings.failing, space("y"), **SMALL, **executor)
    train = partial(trainings.divergent)
    with pytest.raises(NonFiniteError) as caught:
        sweep(train, {"learning_rate": [0.1, 1e300, 0.1]}, key=KEY, jit=False, **executor)
    assert caught.value.members == [(1,)] and caught.value.result.results["0.bias"].shape == (3, 3)


def test_what_cannot_be_sent_is_named(processes):
    with pytest.raises(
        WorkerError, match=r"train `<lambda>` \(test_sweep_executors.py:\d+\) cannot be sent .* cloud|by value"
    ):
        sweep(lambda key, learning_rate: learning_rate, RATES, **SMALL, executor=processes)
    with (
        Path(__file__).open() as file,
        pytest.raises(WorkerError, match="`steps` of the space cannot be sent to another process"),
    ):
        sweep(trainings.fitted, [{"learning_rate": 0.1, "steps": file}], **SMALL, executor=processes)


def test_executors_that_cannot_be_used():
    gone = ThreadPoolExecutor(1)
    gone.shutdown()
    with pytest.raises(WorkerError, match="takes no more tasks: cannot schedule new futures after shutdown"):
        sweep(trainings.number, RATES, **SMALL, executor=gone)
    for executor, message in (
        (3, "executor must have a method submit.* got int 3"),
        (lambda: 3, "must return an executor"),
    ):
        with pytest.raises(TypeError, match=message):
            sweep(trainings.number, RATES, **SMALL, executor=executor)
    forks = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with pytest.raises(ValueError, match='pass mp_context=multiprocessing.get_context."spawn".'):
        sweep(trainings.number, RATES, **SMALL, executor=forks)
    with pytest.raises(TransformError, match="outside of all transforms"):
        tp.vmap(lambda key: sweep(trainings.number, RATES, **{**SMALL, "key": key}, executor=Inline()).results)(
            KEY[None]
        )
    with pytest.raises(ValueError, match="chunk_size must be an int of at least 1, or None, got 0"):
        sweep(trainings.number, RATES, **{**SMALL, "chunk_size": 0})


def test_an_executor_that_breaks_says_how_to_go_on():
    from concurrent.futures.process import BrokenProcessPool

    class Breaks:
        made = 0

        def __init__(self):
            Breaks.made += 1

        def submit(self, fn, *args):
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

        def shutdown(self, wait=True):
            pass

    with pytest.raises(WorkerError, match="ended while members 0 to 9 and others ran.*Pass a function that makes the"):
        sweep(trainings.number, RATES, **SMALL, executor=Breaks())
    Breaks.made = 0
    with pytest.raises(WorkerError, match="ended, 4 times in a row while members"):
        sweep(trainings.number, RATES, **SMALL, executor=Breaks)
    assert Breaks.made == 4


def test_a_worker_with_other_versions_is_refused(monkeypatch):
    from torchpure.train.executors import _worker

    monkeypatch.setattr(_worker, "versions", lambda: (("torchpure", "0.0.1"), ("torch", "1.0")))
    with pytest.raises(
        WorkerError, match=r"the worker, process \d+ on .*, has torchpure 0.0.1, torch 1.0; wanted torchpure"
    ):
        sweep(trainings.number, RATES, **SMALL, executor=Inline())


def test_ctrl_c_cancels_what_has_not_begun():
    class Interrupted(Inline):
        futures = []  # noqa: RUF012

        def submit(self, fn, *args):
            future = Future()
            self.futures.append(future)
            if len(self.futures) == 5:
                self.futures[0].set_exception(KeyboardInterrupt())
            return future

    with pytest.raises(KeyboardInterrupt):
        sweep(trainings.number, RATES, **SMALL, executor=Interrupted())
    assert [future.cancelled() for future in Interrupted.futures] == [False, True, True, True, True]


def test_errors_of_this_library_survive_the_way():
    error = NonFiniteError("bad", step=3, path="w", members=[(2,)], params={"w": 1})
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.step, back.members, back.params) == (str(error), 3, [(2,)], {"w": 1})
    check = pickle.loads(pickle.dumps(CheckError("low", [(3,)], ", line 2 of a.py")))
    assert str(check) == "low: member 3 of vmap, line 2 of a.py" and check.members == [(3,)]


# --- dask and loky ---


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made


@pytest.mark.filterwarnings("ignore")  # of dask and tornado
@pytest.mark.proof
def test_dask_runs_a_sweep_and_survives_the_loss_of_a_worker(client, tmp_path):
    train, wanted = partial(trainings.fatal, folder=str(tmp_path)), sweep(trainings.number, RATES, **SMALL)
    assert_same_bits(sweep(train, RATES, **SMALL, executor=client.get_executor()), wanted)
    assert (tmp_path / "killed").exists()
    double = 2.0  # a closure, which dask sends by value
    made = sweep(lambda key, learning_rate: learning_rate * double, RATES, **SMALL, executor=client)
    assert torch.equal(made.results, RATES["learning_rate"] * 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.proof
def test_loky_makes_new_workers(tmp_path):
    loky = pytest.importorskip("loky")
    made = sweep(
        partial(trainings.fatal, folder=tmp_path), RATES, **SMALL, executor=partial(loky.get_reusable_executor, 2)
    )
    assert_same_bits(made, sweep(trainings.number, RATES, **SMALL))
    assert (tmp_path / "killed").exists() and Path(executors.__file__).exists()

"""Callbacks as pairs of pure functions: each alone, in chains, and in runs that go on from a checkpoint."""

import io
import json
import math
import sys
import types
from operator import itemgetter

import pytest
import torch
from rich.console import Console
from torch import nn

import torchpure as tp
from torchpure import train
from torchpure.errors import TransformError
from torchpure.train import _steps
from torchpure.train.callbacks import (
    Callback,
    best_so_far,
    chain,
    csv_log,
    early_stopping,
    gradient_norms,
    jsonl_log,
    parameter_ema,
    progress_bar,
    tensorboard,
)

X = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
NET = tp.functional(nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double())
ADAM = tp.optim.adam(0.05)


def run(callback, steps=12, every=3, model=NET, **options):
    return tp.fit(model, (X, X**2), optimizer=ADAM, steps=steps, every=every, callback=callback, **options)


def same(ours, theirs):
    tp.tree.check_same(ours, theirs)
    for one, other in zip(tp.tree.leaves(ours), tp.tree.leaves(theirs), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def close(ours, theirs):
    tp.tree.check_same(ours, theirs)
    for one, other in zip(tp.tree.leaves(ours), tp.tree.leaves(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


COUNT = Callback(lambda params: 0, lambda count, progress: (count + 1, count + 1 == 3))
CALLBACKS = {
    "count": lambda: COUNT,
    "early stopping": lambda: early_stopping(2),
    "best": best_so_far,
    "ema": lambda: parameter_ema(0.9),
    "norms": gradient_norms,
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_each_part_of_a_chain_has_the_state_that_it_has_alone(name):
    make = CALLBACKS[name]
    alone = run(make())
    for parts, place in (([make(), early_stopping(9), parameter_ema(0.5)], 0), ([gradient_norms(), make()], 1)):
        for chained in (chain(*parts), parts):
            same(run(chained).callback_state[place], alone.callback_state)


def test_a_run_ends_when_one_of_its_callbacks_stops_it():
    assert len(run(COUNT).history) == 9 and run(COUNT).callback_state == 3
    seen = []
    result = run([COUNT, lambda progress: seen.append(progress.step)])
    assert len(result.history) == 9 and seen == [3, 6, 9] and result.callback_state == (3, None)
    assert run(None).callback_state is None and run(lambda progress: False).callback_state is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, "fit: wanted a function of Progress or a Callback, got 3"),
        (early_stopping, "call it"),
        ([3], "chain: wanted"),
    ],
)
def test_what_is_no_callback_is_an_error(wrong, message):
    with pytest.raises(TypeError, match=message):
        run(wrong)


def test_early_stopping_counts_reports_that_are_not_better():
    values = [5.0, 4.0, 3.9, float("nan"), 3.95, 1.0]
    for min_delta, patience, length in ((0.0, 2, 5), (0.5, 2, 4), (0.5, 3, 5), (0.0, 5, 6)):
        stop = early_stopping(patience, min_delta, metric=lambda progress: values[progress.step - 1])
        result = run(stop, steps=6, every=1)
        assert len(result.history) == length
    assert result.callback_state.best == 1 and result.callback_state.waited == 0
    with pytest.raises(ValueError, match="patience must be a whole number, at least 1"):
        early_stopping(0)
    with pytest.raises(ValueError, match="min_delta must be finite and at least 0"):
        early_stopping(1, -1.0)


def test_the_default_metric_is_the_mean_loss_of_the_report():
    result = run(early_stopping(100))
    assert result.callback_state.best == result.history.view(4, 3).mean(1).min()


def test_best_so_far_keeps_the_parameters_of_the_smallest_metric():
    values, seen = iter([3.0, float("nan"), 1.0, 2.0]), []
    result = run([best_so_far(lambda progress: next(values)), lambda progress: seen.append(progress.params)])
    best, _ = result.callback_state
    assert best.step == 9 and best.value == 1
    same(best.params, seen[2])
    untouched = run(best_so_far(lambda progress: float("nan"))).callback_state
    assert untouched.step == 0 and math.isinf(untouched.value)
    same(untouched.params, NET.params)


@pytest.mark.parametrize("make", [best_so_far, lambda: parameter_ema(0.9)])
def test_a_state_survives_an_optimizer_that_reuses_memory(make):
    def state(optimizer):
        start = {name: value.clone() for name, value in NET.params.items()}
        return tp.fit(
            NET, (X, X**2), params=start, optimizer=optimizer, steps=6, every=2, callback=make(), jit=False
        ).callback_state

    same(state(tp.optim.donate(ADAM)), state(ADAM))
    rising = best_so_far(lambda progress: float(progress.step))
    result = tp.fit(NET, (X, X**2), optimizer=tp.optim.donate(ADAM), steps=4, every=2, callback=rising, jit=False,
                    params={name: value.clone() for name, value in NET.params.items()})  # fmt: skip
    same(result.callback_state.params, run(rising, steps=2, every=2).params)


def frozen():
    module = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    module[0].weight.requires_grad_(False)
    return tp.functional(module)


@pytest.mark.parametrize("every", [1, 5, None])
@pytest.mark.parametrize("make", [lambda: NET, frozen])
def test_the_average_does_not_depend_on_every(every, make):
    model, steps = make(), []
    run(lambda progress: steps.append(progress.params), every=1, model=model)
    weights = [0.8 ** (len(steps) - 1 - number) for number in range(len(steps))]
    wanted = {
        name: sum(w * one[name] for w, one in zip(weights, steps, strict=True)) / sum(weights) for name in model.params
    }
    close(run(parameter_ema(0.8), every=every, model=model).callback_state.params, wanted)


def test_after_one_step_the_average_is_the_parameters():
    result = run(parameter_ema(0.99), steps=1)
    close(result.callback_state.params, result.params)
    with pytest.raises(ValueError, match=r"parameter_ema: decay must be in \[0, 1\)"):
        parameter_ema(1.0)


def test_an_average_of_half_precision_is_kept_in_single_precision():
    result = tp.fit(lambda p, x: ((p - x) ** 2).mean(), torch.ones(3), params=torch.tensor(0.0, dtype=torch.bfloat16),
                    optimizer=tp.optim.sgd(0.1), steps=5, callback=parameter_ema(0.999))  # fmt: skip
    assert result.callback_state.params.dtype == torch.bfloat16
    assert 0.2 < result.callback_state.params < 0.6


def test_gradient_norms_are_those_of_the_reported_step():
    grads = {}
    before = run(None, steps=11)
    grads = tp.grad(lambda p: train.mean_square(NET(p, X), X**2))(before.params)
    result = run(gradient_norms())
    assert result.callback_state.step == 12
    close(result.callback_state.norms, {name: grad.norm() for name, grad in grads.items()})


@pytest.mark.compile
def test_compiled_observers_see_what_uncompiled_ones_see(monkeypatch):
    monkeypatch.setattr(_steps, "MIN_STEPS", 8)
    callbacks = [parameter_ema(0.9), gradient_norms()]
    compiled, plain = (run(callbacks, steps=20, every=10, on_nonfinite="skip", jit=jit) for jit in (True, False))
    close((compiled.params, compiled.callback_state), (plain.params, plain.callback_state))


def test_observers_do_not_change_the_run():
    watched, plain = run([parameter_ema(0.9), gradient_norms()]), run(None)
    same((watched.params, watched.opt_state, watched.history), (plain.params, plain.opt_state, plain.history))


def test_under_vmap_each_member_has_its_own_state():
    def train(start):
        callbacks = [best_so_far(), parameter_ema(0.9), gradient_norms()]
        return tp.fit(lambda p, x: ((p - x) ** 2).mean(), X, params=start, optimizer=ADAM, steps=6, every=2,
                      callback=callbacks).callback_state  # fmt: skip

    starts = torch.tensor([0.5, 2.0], dtype=torch.float64)
    members = tp.vmap(train)(starts)
    for number, start in enumerate(starts):
        close(tp.tree.map(itemgetter(number), members), train(start))
    with pytest.raises(TransformError, match="vmap: .* branches on the value of a mapped tensor"):
        tp.vmap(lambda start: tp.fit(lambda p, x: ((p - x) ** 2).mean(), X, params=start, optimizer=ADAM, steps=2,
                                     callback=early_stopping(1)).params)(starts)  # fmt: skip


LOGS = {"csv": csv_log, "jsonl": jsonl_log}


def rows_of(name, path):
    lines = path.read_text().splitlines()
    if name == "jsonl":
        return [json.loads(line) for line in lines]
    header, *rows = (line.split(",") for line in lines)
    return [{key: float(value) for key, value in zip(header, row, strict=True)} for row in rows]


@pytest.mark.parametrize("name", LOGS)
def test_a_log_has_a_line_for_each_report_as_it_goes(name, tmp_path):
    path, lengths = tmp_path / "folder" / "log", []
    log = LOGS[name](path, metrics={"first": lambda progress: progress.losses[0]})
    result = run([log, lambda progress: lengths.append(len(rows_of(name, path)))])
    assert lengths == [1, 2, 3, 4]
    rows = rows_of(name, path)
    assert [row["step"] for row in rows] == [3, 6, 9, 12] and list(rows[0]) == ["step", "loss", "mean_loss", "first"]
    assert [row["loss"] for row in rows] == result.history[2::3].tolist()
    assert [row["mean_loss"] for row in rows] == [part.mean().item() for part in result.history.split(3)]
    assert [row["first"] for row in rows] == result.history[::3].tolist()


@pytest.mark.parametrize("name", LOGS)
def test_a_new_run_starts_a_log_anew_and_a_resumed_one_drops_what_was_not_saved(name, tmp_path):
    path = tmp_path / "log"
    run(LOGS[name](path))
    run(LOGS[name](path), steps=6)
    assert [row["step"] for row in rows_of(name, path)] == [3, 6]
    make = LOGS[name](path)
    state = make.init(None)
    reports = list(train.loop(lambda p, x: (p - x) ** 2, torch.tensor(0.0), [(torch.tensor(1.0),)] * 3, ADAM))
    saved, _ = make.update(state, reports[0])
    make.update(saved, reports[1])  # written, and lost with the process
    make.update(saved, reports[2])
    assert [row["step"] for row in rows_of(name, path)] == [1, 3]


@pytest.mark.parametrize("name", [*CALLBACKS, *LOGS])
def test_a_resumed_run_has_the_callback_state_of_an_uninterrupted_one(name, tmp_path):
    def make(folder):
        return LOGS[name](tmp_path / folder) if name in LOGS else CALLBACKS[name]()

    whole = run(make("whole"))
    run(make("parts"), steps=6, checkpoint=tmp_path / "run", on_nonfinite=None)
    resumed = run(make("parts"), steps=12, checkpoint=tmp_path / "run", resume=True)
    same((whole.params, whole.history, whole.callback_state), (resumed.params, resumed.history, resumed.callback_state))
    if name in LOGS:
        assert (tmp_path / "whole").read_text() == (tmp_path / "parts").read_text()


def test_infinite_and_missing_numbers_are_json(tmp_path):
    path = tmp_path / "log"
    tp.fit(lambda p, x: (p * x).log(), [(torch.tensor(-1.0),)], params=torch.tensor(1.0), optimizer=ADAM, steps=1,
           callback=jsonl_log(path))  # fmt: skip
    assert json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))["loss"] is None


# --- what people look at ---


def test_a_progress_bar_shows_loss_rate_speed_and_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    times = iter([0.0, 2.0, 4.0, 100.0])
    run(progress_bar(12, learning_rate=lambda step: 0.1 * step, console=console, clock=lambda: next(times)))
    first, second, third, last = console.file.getvalue().rstrip("\n").split("\r")
    assert "step 3/12  loss 0." in first and "steps/s" not in first and "rate 0.2" in first
    assert "step 6/12" in second and "1.5 steps/s  0:04 left" in second
    assert "step 9/12" in third and "1.5 steps/s  0:02 left" in third
    assert "━" * 24 in last and "0:00 left" in last


def test_a_progress_bar_elsewhere_is_a_line_for_each_report(capsys):
    optimizer = tp.optim.inject_hyperparams(tp.optim.sgd)(0.25)
    tp.fit(NET, (X, X**2), optimizer=optimizer, steps=4, every=2, callback=progress_bar())
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 2", "step 4"] and all(
        "rate 0.25" in line for line in lines
    )


def test_tensorboard_writes_scalars(monkeypatch, tmp_path):
    """A stand-in for the package, which is an extra: it takes what `SummaryWriter` takes."""
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            written.append("flush")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    result = run(tensorboard(tmp_path, metrics={"first": lambda progress: progress.losses[0]}), steps=3)
    assert written == [
        str(tmp_path),
        ("loss", result.history[-1].item(), 3),
        ("mean_loss", result.history.mean().item(), 3),
        ("first", result.history[0].item(), 3),
        "flush",
    ]


def test_without_tensorboard_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"tensorboard is not installed: run pip install 'torchpure\[tensorboard\]'"):
        tensorboard("runs")


def test_the_real_tensorboard_reads_what_is_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(tensorboard(tmp_path), steps=4, every=2)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    found = {event.step: event.value for event in read.Scalars("loss")}
    assert found == {step: pytest.approx(float(result.history[step - 1])) for step in (2, 4)}

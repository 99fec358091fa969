"""Compiled steps equal uncompiled steps, and are compiled only if that pays."""

import itertools
import math

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import random
from torchpure.errors import TransformError
from torchpure.train import _steps, _windows, loop, mean_square

X = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
Y = torch.sin(3 * X)


def network():
    net = tp.functional(nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)).double())
    return tp.functional(net.to_module(*net.init(random.key(2))))


def loss(p, x, y):
    return mean_square(NET(p, x), y)


NET, ADAM = network(), tp.optim.adam(0.05)
BATCH, PARTS = (X, Y), [(X[i::3], Y[i::3]) for i in range(3)]


def close(ours, theirs, tolerance):
    tp.tree.check_same(ours, theirs)
    for one, other in zip(tp.tree.leaves(ours), tp.tree.leaves(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max()))


@pytest.fixture
def programs(monkeypatch):
    """Replace the compiler, and list the number of steps of each call of a program."""
    calls = []

    def stand_in(fn):
        def run(*args):
            out = fn(*args)
            calls.append(out[1].numel())
            return out

        return run

    monkeypatch.setattr(_steps, "jit", stand_in)
    monkeypatch.setattr(_steps, "MIN_STEPS", 8)
    monkeypatch.setattr(_steps, "MIN_SINGLE_STEPS", 20)
    return calls


# --- the law ---


@pytest.mark.compile
def test_a_compiled_fit_equals_the_fit_over_the_articles_500_steps():
    """Rounding errors grow with the learning rate and the number of steps, without a compiler too: see the next test."""

    def hidden():
        return nn.Sequential(nn.Linear(1, 5), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    x = random.uniform(random.key(1), (40, 1), high=2 * math.pi, dtype=torch.float64)
    net, data = tp.functional(hidden), (x, 2 * torch.sin(x + 2 * math.pi))
    compiled, plain = (
        tp.fit(net, data, optimizer=tp.optim.adam(0.01), steps=500, jit=jit, key=random.key(0)) for jit in (True, False)
    )
    assert compiled.history.shape == (500,)
    torch.testing.assert_close(compiled.history, plain.history, rtol=1e-12, atol=0)
    close(compiled.params, plain.params, 1e-12)
    close(compiled.opt_state, plain.opt_state, 1e-12)


def test_an_optimizer_amplifies_rounding_without_a_compiler():
    """Adam at a high learning rate and RMSprop move around the minimum, so one bit at the start changes the end."""
    start = {name: value * (1 + 2e-16) for name, value in NET.params.items()}
    ends = [
        tp.fit(NET, BATCH, optimizer=tp.optim.rmsprop(0.01), steps=1500, params=params, jit=False).history[-1]
        for params in (NET.params, start)
    ]
    assert abs(ends[0] - ends[1]) > 1e-9 * ends[0]


@pytest.mark.compile
def test_a_line_search_is_traced_as_a_loop(monkeypatch):
    monkeypatch.setattr(_steps, "MIN_STEPS", 8)
    optimizer = tp.optim.lbfgs(form="torch")
    compiled, plain = (
        list(loop(loss, NET.params, [BATCH] * 12, optimizer, every=12, jit=jit))[-1] for jit in (True, False)
    )
    step = _steps.make_step(loss, optimizer, lambda shared, per_step: shared)
    text = str(tp.make_graph(lambda p: step((p, optimizer.init(p), None), BATCH, {}))(NET.params))
    assert "torchpure_scan" in text and "torchpure_switch" in text  # a loop ended by a condition, traced once
    assert plain.losses[-1] < plain.losses[0] / 2
    close(compiled.losses, plain.losses, 1e-9)
    close(compiled.params, plain.params, 1e-9)


@pytest.mark.compile
@pytest.mark.parametrize("size", [4, 5])
def test_compiled_minibatches_with_buffers_equal_uncompiled(size):
    factory = lambda: nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 1)).double()  # noqa: E731
    options = {"optimizer": tp.optim.sgd(0.05), "steps": 208, "batch_size": size, "key": random.key(3)}
    compiled, plain = (tp.fit(tp.functional(factory), BATCH, jit=jit, **options) for jit in (True, False))
    close(tuple(compiled), tuple(plain), 1e-9)
    assert compiled.state["2.num_batches_tracked"] == 208


@pytest.mark.compile
def test_a_compiled_loop_over_batches_equals_the_loop(monkeypatch):
    monkeypatch.setattr(_steps, "MIN_STEPS", 8)
    runs = [
        list(loop(loss, NET.params, PARTS * 8, ADAM, every=every, jit=jit)) for every, jit in ((10, True), (1, False))
    ]
    assert [one.step for one in runs[0]] == [10, 20, 24]
    assert [len(one.losses) for one in runs[0]] == [10, 10, 4]
    torch.testing.assert_close(
        torch.cat([one.losses for one in runs[0]]), torch.stack([one.loss for one in runs[1]]), rtol=1e-12, atol=0
    )
    for one in runs[0]:
        assert torch.equal(one.loss, one.losses[-1])
        close(one.params, runs[1][one.step - 1].params, 1e-12)


# --- what runs as a program ---


def histories(**options):
    return [tp.fit(NET, BATCH, optimizer=ADAM, jit=jit, **options).history for jit in (True, False)]


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"steps": 7}, []),
        ({"steps": 40}, [40]),
        ({"steps": 40, "every": 15}, [15, 15]),
        ({"steps": 40, "every": 3}, [3] * 11),  # the first two windows run before compiling pays
        ({"steps": 40, "batch_size": 4, "key": random.key(0)}, [40]),
        ({"steps": 40, "batch_size": 5, "key": random.key(0)}, [39]),  # 13 epochs of three batches, one step left
        (
            {"steps": 40, "batch_size": 5, "key": random.key(0), "every": 10},
            [9, 2, 9, 9],
        ),  # the whole epochs of a window
        ({"steps": 60, "every": 1}, [1] * 40),
    ],
)
def test_full_windows_are_compiled_and_others_are_not(programs, options, calls):
    ours, theirs = histories(**options)
    assert programs == calls
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_a_long_fit_is_split_evenly(programs):
    ours, theirs = histories(steps=2003)
    assert programs == [667] * 3
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)


def test_epochs_longer_than_a_program_are_split(programs, monkeypatch):
    monkeypatch.setattr(_windows, "CHUNK", 8)
    ours, theirs = histories(steps=26, batch_size=1, key=random.key(0))
    assert programs == [6] * 3  # four equal windows; the first runs before compiling pays
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def shapes(sizes):
    return [(X[:size], Y[:size]) for size in sizes]


def test_a_batch_of_another_shape_starts_a_new_program(programs):
    batches = shapes([6] * 10 + [4] * 10 + [6] * 5)
    compiled = list(loop(loss, NET.params, batches, ADAM, every=10))
    assert programs == [10, 10]
    plain = list(loop(loss, NET.params, batches, ADAM, jit=False))
    torch.testing.assert_close(
        torch.cat([one.losses for one in compiled]), torch.stack([one.loss for one in plain]), rtol=1e-12, atol=0
    )
    assert [one.step for one in compiled] == [10, 20, 25]


def test_ragged_batches_within_a_window_give_one_progress(programs):
    steps = list(loop(loss, NET.params, shapes([6, 6, 4] * 5), ADAM, every=6))
    assert [one.step for one in steps] == [6, 12, 15] and [len(one.losses) for one in steps] == [6, 6, 3]
    assert not programs


def test_a_repeated_batch_is_not_copied(programs, monkeypatch):
    monkeypatch.setattr(_windows, "_MAX_STACKED_BYTES", 1)
    steps = loop(loss, NET.params, itertools.repeat(BATCH), ADAM, every=10)
    assert next(steps).step == 10 and programs == [10]
    copies = loop(loss, NET.params, shapes([6] * 20), ADAM, every=10)
    assert len(next(copies).losses) == 10 and programs == [10]  # two batches exceed the limit: step by step


def test_a_loop_reads_batches_only_up_to_the_next_progress(programs):
    batches = iter(PARTS * 10)
    steps = loop(loss, NET.params, batches, ADAM, every=9)
    next(steps)
    assert len(list(batches)) == 21


def test_batches_with_leaves_that_are_no_tensors_run_step_by_step(programs):
    def scaled(p, batch):
        return loss(p, *batch["data"]) * batch["scale"]

    same = [({"data": BATCH, "scale": 2.0},) for _ in range(10)]
    assert len(list(loop(scaled, NET.params, same, ADAM, every=10))) == 1
    other = [({"data": BATCH, "scale": float(i)},) for i in range(30)]
    assert len(list(loop(scaled, NET.params, other, ADAM, every=10))) == 3
    assert not programs


@pytest.mark.parametrize("data", [(X, Y), [(X, Y)], PARTS])
def test_compiled_draws_equal_uncompiled_draws(programs, data):
    module = nn.Sequential(nn.Linear(1, 6), nn.Dropout(0.5), nn.Linear(6, 1)).double()
    net = tp.functional(module)
    ours, theirs = (
        tp.fit(net, data, optimizer=ADAM, steps=20, key=random.key(5), jit=jit).history for jit in (True, False)
    )
    assert programs
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("size", [None, 12, 4, 5])
def test_the_draws_of_a_step_come_from_its_number(programs, size, jit):
    net = tp.functional(nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1)).double())
    key = random.key(5)
    k_order, k_draws = random.split(key)
    batches = tp.train.minibatches(k_order, (X, Y), size) if size else itertools.repeat((X, Y))
    expected = [
        tp.train.mean_square(net.apply(net.params, {}, x, key=random.fold_in(k_draws, number))[0], y)
        for number, (x, y) in enumerate(itertools.islice(batches, 20))
    ]
    options = {"optimizer": tp.optim.sgd(0.0), "steps": 20, "key": key, "jit": jit, "every": 20}
    found = tp.fit(net, (X, Y), batch_size=size, **options).history
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=0)


def test_leaves_that_are_not_trained_stay_unchanged(programs):
    start = {"w": torch.tensor(1.0), "n": 3, "hole": None}
    result = tp.fit(
        lambda p, x: (p["w"] * p["n"] - x).square().mean(), torch.ones(4), params=start, optimizer=ADAM, steps=20
    )
    assert programs and result.params["n"] == 3 and type(result.params["n"]) is int and result.params["hole"] is None


def test_training_under_transforms_is_one_loop():
    def train(learning_rate):
        return tp.fit(NET, BATCH, optimizer=tp.optim.sgd(learning_rate), steps=12).history[-1]

    learning_rates = torch.tensor([0.1, 0.2], dtype=torch.float64)
    torch.testing.assert_close(tp.vmap(train)(learning_rates), torch.stack([train(lr) for lr in learning_rates]))
    eps = 1e-6
    slope = (train(learning_rates[0] + eps) - train(learning_rates[0] - eps)) / (2 * eps)
    torch.testing.assert_close(tp.grad(train)(learning_rates[0]), slope, rtol=1e-6, atol=0)
    names = [str(node.target) for node in tp.make_graph(train)(learning_rates[0]).module.graph.nodes]
    assert sum("scan" in name for name in names if "body" not in name) == 1


# --- callbacks, interruptions, errors ---


def test_a_callback_sees_each_window_and_ends_the_run():
    seen = []

    def callback(progress):
        seen.append((progress.step, len(progress.losses)))
        return progress.step >= 10

    result = tp.fit(NET, BATCH, optimizer=ADAM, steps=100, every=5, callback=callback, jit=False)
    assert seen == [(5, 5), (10, 5)] and result.history.shape == (10,) and result.opt_state.step == 10
    assert torch.equal(result.history, tp.fit(NET, BATCH, optimizer=ADAM, steps=10, jit=False).history)


def test_an_interruption_takes_effect_between_windows(programs):
    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tp.fit(NET, BATCH, optimizer=ADAM, steps=100, every=10, callback=interrupt)
    assert programs == [10]


@pytest.mark.parametrize("every", [0, True, 2.0])
def test_every_must_be_a_number_of_steps(every):
    with pytest.raises(ValueError, match="loop: every must be an integer, at least 1"):
        next(loop(loss, NET.params, PARTS, ADAM, every=every))
    with pytest.raises(ValueError, match="fit: every must be an integer, at least 1"):
        tp.fit(NET, BATCH, optimizer=ADAM, steps=3, every=every)


LOSSES = {
    "vector": (lambda p, x, y: NET(p, x) - y, r"must return a real tensor of shape \(\)"),
    "item": (
        lambda p, x, y: loss(p, x, y) * tp.stop_gradient(loss(p, x, y)).item(),
        "needs the number of a tensor.*jit=False",
    ),
    "branch": (lambda p, x, y: loss(p, x, y) if x.sum() > 0 else loss(p, y, x), r"test_compiled.py.*jit=False"),
    "key error": (lambda p, x, y: p["missing"], "missing"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_error_names_the_loss(name):
    wrong, message = LOSSES[name]
    with pytest.raises((TransformError, KeyError), match=message):
        tp.fit(wrong, BATCH, params=NET.params, optimizer=ADAM, steps=500)


def test_a_loss_that_reads_numbers_runs_uncompiled():
    wrong, _ = LOSSES["item"]
    assert tp.fit(wrong, BATCH, params=NET.params, optimizer=ADAM, steps=3, jit=False).history.shape == (3,)


def test_a_state_whose_keys_change_order_is_matched_by_key():
    def update(grads, state, params):
        state = {"b": state["b"] + grads["w"].sum(), "a": 2 * state["a"]}
        return tp.tree.scale(grads, -state["a"]), state

    turning = tp.optim.Optimizer(lambda params: {"a": torch.tensor(0.01), "b": torch.tensor(0.0)}, update)

    def distance(params, x):
        return ((params["w"] - x) ** 2).sum()

    step = _steps.make_step(distance, turning, lambda shared, per_step: (per_step,))
    rows = torch.arange(6.0).reshape(3, 2)
    params = {"w": torch.ones(2)}
    (wanted, state, _), _ = _steps.scan_steps(step, (params, turning.init(params), None), None, rows, 3)
    by_hand, held = params, turning.init(params)
    for x in rows:
        by_hand, held = turning.step(tp.grad(distance)(by_hand, x), held, by_hand)
    torch.testing.assert_close((wanted, state), (by_hand, held))


def test_a_state_that_changes_a_leaf_that_is_no_tensor_is_an_error(programs):
    counting = tp.optim.Optimizer(lambda params: 0, lambda grads, state, params: (grads, state + 1))
    with pytest.raises(
        TransformError, match=r"a step makes int 1 of int 0 at `1`.*keep it as a tensor; or pass jit=False"
    ):
        tp.fit(NET, BATCH, optimizer=counting, steps=20)
    assert tp.fit(NET, BATCH, optimizer=counting, steps=20, jit=False).opt_state == 20

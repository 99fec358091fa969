import math
import signal
from types import SimpleNamespace

import pytest
import torch

from torchpure import random
from torchpure.runs.fits import _fit
from torchpure.runs.fits._config import configure
from torchpure.runs.fits._fit import fit, optimizer
from torchpure.runs.fits._network import build
from torchpure.runs.fits._points import load

K_DATA, K_INIT = random.split(random.key(0))


def fitted(stop=lambda: 0, **options):
    config = configure({"target": "2*sin(x + 2*pi)", "hidden": "8", "steps": 20} | options)
    data = load(config, K_DATA)
    network = build(config, data.train, data.preprocessing)
    reports = []
    result = fit(network, data, config, K_INIT, lambda step, loss, _: reports.append((step, loss)), stop)
    return result, network, data, reports


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_loss_falls(name, schedule):
    result, network, data, reports = fitted(optimizer=name, schedule=schedule)
    assert (result.code, result.steps) == (0, 20)
    assert [step for step, _ in reports] == list(range(1, 21))
    assert [loss for _, loss in reports] == list(result.losses)
    assert result.losses[-1] < result.losses[0]
    with torch.no_grad():
        assert result.test_loss == float((network(data.test.x) - data.test.y).square().mean())


def test_losses_are_in_the_units_of_the_target():
    small, large = fitted()[0], fitted(target="2000*sin(x + 2*pi)")[0]
    assert list(large.losses) == pytest.approx([1e6 * loss for loss in small.losses], rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_is_reproducible(dtype):
    assert fitted(dtype=dtype)[0].losses == fitted(dtype=dtype)[0].losses


@pytest.mark.parametrize("target", ["3", "sin(x)**2 + cos(x)**2", "1e90*x", "1e-90*x"])
def test_targets_of_extreme_sizes(target):
    result = fitted(target=target)[0]
    assert result.code == 0
    assert math.isfinite(result.test_loss)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_training_and_keeps_the_parameters(number, code):
    seen = []
    result, network, _, _ = fitted(stop=lambda: seen.append(1) or (number if len(seen) >= 5 else 0))
    assert (result.code, result.steps, len(result.losses)) == (code, 5, 5)
    longer = fitted()[0]
    assert list(result.losses) == list(longer.losses)[:5]
    assert all(value.isfinite().all() for value in network.parameters())


def test_a_signal_in_the_last_step_changes_nothing():
    result, *_ = fitted(steps=1, stop=lambda: signal.SIGINT)
    assert (result.code, result.steps) == (0, 1)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_a_loss_that_is_not_finite_ends_the_training(steps):
    result, network, _, _ = fitted(optimizer="sgd", learning_rate=1e38, steps=steps)
    assert result.code == 1
    assert result.steps < steps
    assert all(math.isfinite(loss) for loss in result.losses)
    assert all(value.isfinite().all() for value in network.parameters())


def test_the_newest_parameters_with_a_finite_loss_are_kept(monkeypatch):
    losses = [1.0, 0.5, math.nan, 0.25]

    def broken(loss, params, batches, optimizer, state, **saving):
        for step, value in enumerate(losses, start=1):
            moved = {name: torch.full_like(values, step) for name, values in params.items()}
            yield SimpleNamespace(step=step, loss=torch.tensor(value), params=moved, state=state)
            state = moved

    monkeypatch.setattr(_fit.train, "loop", broken)
    result, network, _, _ = fitted(steps=4)
    assert (result.code, result.steps, len(result.losses)) == (1, 1, 2)
    assert all((values == 1).all() for values in network.parameters())


def test_the_learning_rate_follows_the_schedule():
    params = {"w": torch.tensor([1.0])}
    for schedule, last in (("constant", 0.5), ("cosine", 0.0)):
        pair = optimizer(
            configure({"target": "x", "optimizer": "sgd", "learning_rate": 0.5, "steps": 3, "schedule": schedule})
        )
        state = pair.init(params)
        for _ in range(4):
            updates, state = pair.update({"w": torch.tensor([1.0])}, state, params)
        assert (float(updates["w"].abs()) == pytest.approx(0, abs=1e-7)) is (last == 0)


def test_the_articles_network_learns():
    result = fitted(preset="article", hidden=None, steps=None)[0]
    assert (result.code, result.steps) == (0, 500)
    assert result.train_loss < 0.1 * result.losses[0]


@pytest.mark.parametrize(("name", "reached"), [("sgd", 0.95), ("adam", 0.9), ("adamw", 0.95)])
def test_weight_decay_is_a_penalty_and_of_adamw_decoupled(name, reached):
    given = {"optimizer": name, "learning_rate": 0.1, "weight_decay": 0.5, "schedule": "constant"}
    pair, params = optimizer(configure({"target": "x"} | given)), {"w": torch.tensor([1.0])}
    after, _ = pair.step({"w": torch.zeros(1)}, pair.init(params), params)
    torch.testing.assert_close(after["w"], torch.tensor([reached]))

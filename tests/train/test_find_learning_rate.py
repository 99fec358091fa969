"""The range test: rates grow, the loss is smoothed, and a run that diverges ends it."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.train import find_learning_rate

X = torch.linspace(-1, 1, 20, dtype=torch.float64)
START = torch.tensor(0.0, dtype=torch.float64)


def parabola(p, x):
    return ((p - 1) ** 2 * x**0).mean()


def search(loss=parabola, **options):
    return find_learning_rate(
        loss, X, **{"params": START, "optimizer": tp.optim.sgd, "steps": 60, "low": 1e-4} | options
    )


def test_the_rates_grow_exponentially_and_end_where_the_loss_diverges():
    found = search(smoothing=0.0)
    ratios = found.rates[1:] / found.rates[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=1e-10, atol=0)
    assert found.rates[0] == 1e-4 and len(found.rates) == len(found.losses) < 60
    assert found.losses[-1] <= 4 * found.losses.min()
    whole = search(high=0.1)  # the first nine losses only feed the average of ten
    assert len(whole.rates) == len(whole.losses) == 51
    torch.testing.assert_close(whole.rates[-1], torch.tensor(0.1, dtype=torch.float64))


def test_the_losses_are_those_of_a_fit_with_that_schedule():
    found = search(high=0.1, smoothing=0.0)
    fitted = tp.fit(parabola, X, params=START, steps=60, jit=False,
                    optimizer=tp.optim.sgd(lambda step: 1e-4 * 1000 ** (step / 59)))  # fmt: skip
    torch.testing.assert_close(found.losses, fitted.history, rtol=1e-10, atol=0)
    decay, weights = 0.9, 0.9 ** torch.arange(59, -1, -1, dtype=torch.float64)
    smooth = search(high=0.1, smoothing=decay).losses
    torch.testing.assert_close(smooth[-1], (weights * fitted.history).sum() / weights.sum(), rtol=1e-10, atol=0)


def test_the_suggestion_is_where_the_loss_falls_fastest():
    found = search(smoothing=0.0)
    assert found.rates[torch.gradient(found.losses)[0].argmin()] == found.suggestion
    assert 0.01 < found.suggestion < 0.5  # (1 − 2 · rate)² falls until rate ½, and nothing is left to fall before
    assert repr(found).startswith(f"LearningRates: {found.suggestion:.4g} suggested; ") and "smallest loss" in repr(
        found
    )


def test_a_loss_that_becomes_nan_ends_the_test():
    found = search(lambda p, x: torch.where(p > 0.9, float("nan"), parabola(p, x)), smoothing=0.0)
    assert 2 < len(found.rates) < 60 and found.losses.isfinite().all()


@pytest.mark.compile
def test_the_compiled_test_is_one_scan_of_all_steps():
    net = tp.functional(nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double())
    data = (X[:, None], X[:, None] ** 2)
    compiled, plain = (
        find_learning_rate(net, data, optimizer=tp.optim.adam, batch_size=5, key=tp.random.key(0), jit=jit, high=0.1)
        for jit in (True, False)
    )
    torch.testing.assert_close(compiled.losses, plain.losses, rtol=1e-6, atol=0)
    assert compiled.suggestion == plain.suggestion


ERRORS = {
    "low": ({"low": 0.0}, "low must be finite and greater than 0"),
    "high": ({"high": 1e-5}, "high must be finite and greater than 0.0001"),
    "steps": ({"steps": 0}, "steps must be a whole number"),
    "smoothing": ({"smoothing": 1.0}, r"smoothing must be in \[0, 1\)"),
    "flat": ({"loss": lambda p, x: 0 * p}, "the loss falls at none of 51 rates before it diverges"),
    "nan": ({"loss": lambda p, x: p * float("nan")}, "the loss falls at none of 0 rates before it diverges"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    options, message = ERRORS[name]
    with pytest.raises(ValueError, match=f"find_learning_rate: {message}"):
        search(**options)

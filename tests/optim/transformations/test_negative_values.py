"""Relative tolerances where the value of the loss is negative or zero."""

import pytest
import torch

from torchpure import optim, value_and_grad


def _scales(values, **options):
    plateau, params, found = optim.reduce_on_plateau(0.1, patience=2, **options), torch.zeros(1), []
    state = plateau.init(params)
    for value in values:
        _, state = plateau.update(torch.ones(1), state, params, value=torch.tensor(value, dtype=torch.float64))
        found.append(state.scale.item())
    return pytest.approx(found), state.best_value.item()


@pytest.mark.parametrize("value", [1.0, 0.0, -1.0, -1e6])
def test_a_constant_value_is_a_plateau(value):
    scales, best = _scales([value] * 7)
    assert scales == [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001] and best == value


def test_a_value_that_rises_never_becomes_the_best():
    scales, best = _scales([-10 + 1e-4 * i for i in range(5)])
    assert scales == [1, 1, 0.1, 0.1, 0.01] and best == -10


@pytest.mark.parametrize("start", [10.0, 0.5, -10.0])
def test_a_value_that_falls_by_more_than_the_tolerance_keeps_the_scale(start):
    scales, best = _scales([start - 0.5 * i for i in range(8)], rtol=0.01)
    assert scales == [1] * 8 and best == start - 3.5


def test_a_value_that_falls_by_less_than_the_tolerance_is_a_plateau():
    scales, best = _scales([-10 - 0.01 * i for i in range(4)], rtol=0.01)
    assert scales == [1, 1, 0.1, 0.1] and best == -10


@pytest.mark.parametrize("shift", [100.0, -100.0])
def test_a_backtracking_search_accepts_a_rise_within_the_relative_tolerance(shift):
    def f(x):
        return x.square().sum() + shift

    # from 1 to −2 the value rises by 3, which is within a tenth of 101 and of 99
    opt = optim.chain(optim.sgd(1.5), optim.scale_by_backtracking_linesearch(20, rtol=0.1))
    x = torch.tensor([1.0])
    value, grad = value_and_grad(f)(x)
    assert opt.step(grad, opt.init(x), x, value=value, grad=grad, value_fn=f)[0].item() == pytest.approx(-2.0)

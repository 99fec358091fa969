"""Schedules against their formulas, at the edges too."""

import math

import pytest
import torch

from torchpure import grad, optim, vmap

# name -> (schedule, formula of a step in Python floats)
SCHEDULES = {
    "constant": (optim.constant_schedule(0.3), lambda t: 0.3),
    "exponential": (optim.exponential_decay(0.1, 7, 0.5), lambda t: 0.1 * 0.5 ** (t / 7)),
    "staircase": (optim.exponential_decay(0.1, 7, 0.5, staircase=True), lambda t: 0.1 * 0.5 ** (t // 7)),
    "late": (
        optim.exponential_decay(0.1, 7, 0.5, transition_begin=10),
        lambda t: 0.1 * 0.5 ** (max(t - 10, 0) / 7),
    ),
    "bounded": (optim.exponential_decay(0.1, 7, 0.5, end_value=0.02), lambda t: max(0.1 * 0.5 ** (t / 7), 0.02)),
    "growing": (optim.exponential_decay(0.1, 7, 2.0, end_value=0.5), lambda t: min(0.1 * 2 ** (t / 7), 0.5)),
    "cosine": (
        optim.cosine_decay_schedule(0.1, 40, alpha=0.1),
        lambda t: 0.1 * (0.9 * 0.5 * (1 + math.cos(math.pi * min(t, 40) / 40)) + 0.1),
    ),
    "cosine squared": (
        optim.cosine_decay_schedule(0.1, 40, exponent=2.0),
        lambda t: 0.1 * (0.5 * (1 + math.cos(math.pi * min(t, 40) / 40))) ** 2,
    ),
    "warmup": (
        optim.warmup_cosine_decay_schedule(0.01, 0.1, 10, 50, 0.001),
        lambda t: (
            0.01 + 0.09 * t / 10 if t < 10 else 0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi * min((t - 10) / 40, 1)))
        ),
    ),
    "no warmup": (
        optim.warmup_cosine_decay_schedule(0.01, 0.1, 0, 50),
        lambda t: 0.1 * 0.5 * (1 + math.cos(math.pi * min(t / 50, 1))),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_its_formula(name):
    schedule, formula = SCHEDULES[name]
    for step in (0, 1, 6, 7, 9, 10, 11, 25, 39, 40, 50, 1000):
        value = schedule(torch.tensor(step))
        assert value.shape == () and value.dtype == torch.float64
        assert value.item() == pytest.approx(formula(step), rel=1e-13, abs=1e-17)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_batched_by_vmap(name):
    schedule, formula = SCHEDULES[name]
    values = vmap(schedule)(torch.arange(0.0, 60.0, 9.0, dtype=torch.float64))
    assert values.tolist() == pytest.approx([formula(step) for step in range(0, 60, 9)], rel=1e-13, abs=1e-17)


def test_the_first_update_uses_step_zero_and_each_later_one_the_next():
    optimizer = optim.sgd(optim.exponential_decay(1.0, 1, 0.5))
    params = torch.zeros((), dtype=torch.float64)
    state = optimizer.init(params)
    for expected in (-1.0, -1.5, -1.75):
        params, state = optimizer.step(torch.ones((), dtype=torch.float64), state, params)
        assert params.item() == expected


def test_a_run_is_differentiable_in_a_schedule_parameter():
    def final(peak):
        optimizer = optim.sgd(lambda step: peak * optim.cosine_decay_schedule(1.0, 4)(step))
        params, state = torch.tensor(1.0, dtype=torch.float64), None
        state = optimizer.init(params)
        for _ in range(3):
            params, state = optimizer.step(2 * params, state, params)
        return params

    rates = [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(3)]
    factors = [1 - 2 * 0.1 * rate for rate in rates]
    expected = sum(math.prod(factors) / factor * -2 * rate for factor, rate in zip(factors, rates, strict=True))
    assert grad(final)(torch.tensor(0.1, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-13)

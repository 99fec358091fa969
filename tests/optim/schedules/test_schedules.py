"""Schedules against their formulas, optax and torch, also at their limits."""

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

    lrs = [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(3)]
    factors = [1 - 2 * 0.1 * lr for lr in lrs]
    expected = sum(math.prod(factors) / factor * -2 * lr for factor, lr in zip(factors, lrs, strict=True))
    assert grad(final)(torch.tensor(0.1, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-13)


BOUNDS = {5: 0.5, 12: 0.3, 30: 2.0}
ROUND = {"init_value": 0.01, "peak_value": 0.1, "warmup_steps": 4, "decay_steps": 20, "end_value": 0.003}

# name in optax -> arguments; the comparison covers the whole range and later steps
AS_OPTAX = {
    "constant_schedule": [{"value": 0.3}],
    "linear_schedule": [{"init_value": 0.1, "end_value": 0.7, "transition_steps": 9, "transition_begin": 4}],
    "polynomial_schedule": [{"init_value": 0.1, "end_value": 0.01, "power": 2.5, "transition_steps": 30}],
    "exponential_decay": [
        {"init_value": 0.1, "transition_steps": 7, "decay_rate": 0.5, "transition_begin": 3, "staircase": True},
        {"init_value": 0.1, "transition_steps": 7, "decay_rate": 0.5, "end_value": 0.02},
        {"init_value": 0.1, "transition_steps": 7, "decay_rate": 1.5, "end_value": 0.4},
    ],
    "piecewise_constant_schedule": [{"init_value": 0.1}, {"init_value": 0.1, "boundaries_and_scales": BOUNDS}],
    "piecewise_interpolate_schedule": [
        {"interpolate_type": "linear", "init_value": 0.1, "boundaries_and_scales": BOUNDS},
        {"interpolate_type": "cosine", "init_value": 0.1, "boundaries_and_scales": BOUNDS},
    ],
    "cosine_decay_schedule": [{"init_value": 0.1, "decay_steps": 40, "alpha": 0.2, "exponent": 1.5}],
    "warmup_constant_schedule": [{"init_value": 0.01, "peak_value": 0.1, "warmup_steps": 9}],
    "warmup_cosine_decay_schedule": [{**ROUND, "exponent": 2.0}, {**ROUND, "warmup_steps": 0}],
    "warmup_exponential_decay_schedule": [
        {
            "init_value": 0.01,
            "peak_value": 0.1,
            "warmup_steps": 6,
            "transition_steps": 5,
            "decay_rate": 0.7,
            "transition_begin": 3,
            "end_value": 0.02,
        }
    ],
    "linear_onecycle_schedule": [
        {"transition_steps": 50, "peak_value": 0.2},
        {"transition_steps": 3, "peak_value": 0.2},
    ],
    "cosine_onecycle_schedule": [{"transition_steps": 50, "peak_value": 0.2, "pct_start": 0.4}],
    "sgdr_schedule": [{"cosine_kwargs": [ROUND, {**ROUND, "decay_steps": 30}, ROUND]}],
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, many in AS_OPTAX.items() for i in range(len(many))])
def test_schedule_equals_optax_over_its_whole_range(name, number):
    import jax
    import jax.numpy as jnp
    import optax

    given = AS_OPTAX[name][number]
    with jax.enable_x64(True):
        theirs = getattr(optax, name)(**given)
        wanted = jax.vmap(theirs)(jnp.arange(90)).tolist()
    ours = getattr(optim, name)(**given)
    assert ours(torch.arange(90)).tolist() == pytest.approx(wanted, rel=1e-12, abs=1e-17)
    assert ours(torch.tensor(17.0)).item() == ours(torch.arange(90))[17].item()


def test_joined_schedules_equal_optax():
    import jax
    import optax

    parts = [("linear_schedule", (0.0, 1.0, 10)), ("constant_schedule", (0.7,)), ("exponential_decay", (0.5, 5, 0.5))]
    ours = optim.join_schedules([getattr(optim, name)(*given) for name, given in parts], [10, 25])
    with jax.enable_x64(True):
        theirs = optax.join_schedules([getattr(optax, name)(*given) for name, given in parts], [10, 25])
        wanted = [float(theirs(step)) for step in range(60)]
    assert ours(torch.arange(60)).tolist() == pytest.approx(wanted, rel=1e-12)


def _torch_values(make, steps, lr):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler, values = make(optimizer), []
    for step in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return values


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [10, 57, 100])
def test_one_cycle_equals_torch(kind, three_phase, steps):
    given = {"pct_start": 0.35, "div_factor": 20.0, "final_div_factor": 1e3, "three_phase": three_phase}
    strategy = {"cosine": "cos", "linear": "linear"}[kind]
    wanted = _torch_values(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.3, total_steps=steps, anneal_strategy=strategy, **given),
        steps,
        0.3,
    )
    ours = optim.one_cycle_schedule(0.3, steps, interpolate_type=kind, **given)
    assert ours(torch.arange(steps)).tolist() == pytest.approx(wanted, rel=1e-12)
    assert ours(torch.tensor(5 * steps)).item() == pytest.approx(wanted[-1], rel=1e-12)


@pytest.mark.parametrize(("period", "factor"), [(1, 1), (7, 1), (1, 2), (5, 2), (3, 3), (10, 5)])
def test_cosine_warm_restarts_equal_torch(period, factor):
    wanted = _torch_values(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, period, factor, eta_min=0.01), 700, 0.3
    )
    ours = optim.cosine_warm_restarts_schedule(0.3, period, factor=factor, end_value=0.01)
    assert ours(torch.arange(700)).tolist() == pytest.approx(wanted, rel=1e-11)


@pytest.mark.parametrize("name", [name for name in AS_OPTAX if name != "sgdr_schedule"])
def test_schedule_is_differentiable_and_batched_in_its_numbers(name):
    given = AS_OPTAX[name][-1]
    numbers = {key: torch.tensor(value, dtype=torch.float64) for key, value in given.items() if type(value) is float}
    numbers.pop("pct_start", None)

    def total(changes):
        return getattr(optim, name)(**{**given, **changes})(torch.arange(60)).sum()

    derivatives = grad(total)(numbers)
    for key, value in numbers.items():
        step = 1e-6 * value
        difference = (total({**numbers, key: value + step}) - total({**numbers, key: value - step})) / (2 * step)
        assert derivatives[key].item() == pytest.approx(difference.item(), rel=1e-6, abs=1e-8)
        both = vmap(lambda one, key=key: total({**numbers, key: one}))(torch.stack([value, 1.1 * value]))
        assert both.tolist() == pytest.approx(
            [total(numbers).item(), total({**numbers, key: 1.1 * value}).item()], rel=1e-12
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.linear_schedule(0.1, 0.2, 0), "linear_schedule: transition_steps must be greater than 0, got 0"),
        (lambda: optim.polynomial_schedule(1, 0, 2, 5, transition_begin=-1), "transition_begin must be at least 0"),
        (lambda: optim.join_schedules([], []), "join_schedules: wanted one boundary fewer than schedules, got 0 bound"),
        (lambda: optim.join_schedules([abs, abs, abs], [5, 3]), r"boundaries must not decrease, got \[5, 3\]"),
        (lambda: optim.warmup_constant_schedule(0, 1, 0), "warmup_constant_schedule: warmup_steps must be greater"),
        (lambda: optim.sgdr_schedule([]), "sgdr_schedule: wanted at least one round"),
        (lambda: optim.cosine_warm_restarts_schedule(1.0, 0), "period must be a whole number, at least 1, got 0"),
        (lambda: optim.cosine_warm_restarts_schedule(1.0, 2, factor=1.5), "factor must be a whole number"),
        (lambda: optim.piecewise_constant_schedule(1.0, {5: -0.1}), "scales must be at least 0, got -0.1 at 5"),
        (
            lambda: optim.piecewise_interpolate_schedule("cubic", 1.0),
            r"must be one of \['linear', 'cosine'\], got 'cubic'",
        ),
        (lambda: optim.linear_onecycle_schedule(0, 1.0), "linear_onecycle_schedule: transition_steps must be greater"),
        (lambda: optim.cosine_onecycle_schedule(0, 1.0), "cosine_onecycle_schedule: transition_steps must be greater"),
        (lambda: optim.one_cycle_schedule(1.0, 10, pct_start=2.0), r"pct_start must be in \[0, 1\], got 2.0"),
    ],
)
def test_error_names_the_bad_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()

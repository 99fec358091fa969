"""Every number of an optimizer can be scheduled, injected and set by hand."""

import inspect

import pytest
import torch
from cases import OPTIMIZERS

from torchpure import optim, testing, tree
from torchpure.testing._case import BOWL, advance

D = torch.float64
PLAIN = {name: case for name, case in OPTIMIZERS.items() if "," not in name and case.factory is getattr(optim, name)}
NUMBERS = [(name, number) for name, case in PLAIN.items() for number in ("learning_rate", *case.numbers())]
DECAYS = [name for name in PLAIN if "weight_decay" in inspect.signature(PLAIN[name].factory).parameters]


def _run(optimizer, steps=3):
    params = BOWL.start()
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = advance(optimizer, BOWL, params, state)
    return params, state


def _arguments(name, number, value):
    case = PLAIN[name]
    rate = value if number == "learning_rate" else case.learning_rate
    return (rate,), {**case.hyper, **case.options, **({} if number == "learning_rate" else {number: value})}


@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_a_number_can_be_injected_scheduled_and_set_by_hand(name, number):
    case = PLAIN[name]
    start = case.learning_rate if number == "learning_rate" else case.numbers()[number]
    first = next(iter(inspect.signature(case.factory).parameters)) if number == "learning_rate" else number
    make = optim.inject_hyperparams(case.factory)
    given, keywords = _arguments(name, number, start)
    wanted = _run(case.factory(*given, **keywords))[0]
    injected = make(*given, **keywords)
    found, state = _run(injected)
    testing.assert_trees_close(found, wanted, rtol=1e-9)
    assert state.hyperparams[first].item() == start
    given, keywords = _arguments(name, number, lambda step: start + 0 * step)
    testing.assert_trees_close(_run(make(*given, **keywords))[0], wanted, rtol=1e-9)
    other, params, state = start * 0.9, BOWL.start(), injected.init(BOWL.start())
    for value in (other, torch.tensor(other)):  # set by hand: a number of Python, or a tensor of another dtype
        changed = state._replace(hyperparams={**state.hyperparams, first: value})
        _, after = advance(injected, BOWL, params, changed)
        assert after.hyperparams[first].dtype == D and after.hyperparams[first].item() == pytest.approx(other)


def test_a_schedule_of_any_number_is_read_at_each_step():
    opt = optim.inject_hyperparams(optim.sgd)(1.0, momentum=lambda step: 0.5 * (step > 0))
    params, one = torch.zeros(1, dtype=D), torch.ones(1, dtype=D)
    state = opt.init(params)
    for wanted in (-1.0, -2.5, -4.25):  # b = 1, 0.5 · 1 + 1, 0.5 · 1.5 + 1
        params, state = opt.step(one, state, params)
        assert params.item() == wanted


def test_a_tuple_of_numbers_is_a_tuple_in_the_state():
    opt = optim.inject_hyperparams(optim.prodigy)(1.0, betas=(lambda step: 0.8 + 0.1 * step, 0.99))
    _, state = _run(opt, steps=2)
    assert tree.map(float, state.hyperparams["betas"]) == (pytest.approx(0.9), pytest.approx(0.99))


def test_numbers_outside_of_their_range_are_refused_when_the_optimizer_is_made():
    with pytest.raises(ValueError, match="b1 must be in"):
        optim.inject_hyperparams(optim.adam)(0.1, b1=2.0)


@pytest.mark.parametrize("wrong", [optim.adam(0.1), 0.1])
def test_what_is_no_factory_is_refused(wrong):
    with pytest.raises(TypeError, match=r"wanted a factory, as in inject_hyperparams\(adam\)\(0.1\)"):
        optim.inject_hyperparams(wrong)


@pytest.mark.parametrize("name", DECAYS)
def test_a_weight_decay_may_be_a_schedule(name):
    case = PLAIN[name]
    options = {**case.hyper, **case.options}
    options.pop("weight_decay", None)
    constant = case.factory(case.learning_rate, **options, weight_decay=0.1)
    scheduled = case.factory(case.learning_rate, **options, weight_decay=lambda step: 0.1 + 0 * step)
    testing.assert_trees_close(_run(scheduled)[0], _run(constant)[0], rtol=1e-12)


@pytest.mark.parametrize("mask", ["w", {"w": True, "b": False}, lambda params: {"w": True, "b": False}])
def test_adamw_decays_the_leaves_that_the_mask_selects(mask):
    found = _run(optim.adamw(0.05, weight_decay=0.1, mask=mask))[0]
    decayed = optim.chain(
        optim.scale_by_adam(), optim.add_decayed_weights(0.1, mask=mask), optim.scale_by_learning_rate(0.05)
    )
    testing.assert_trees_close(found, _run(decayed)[0], rtol=1e-12)
    without = _run(optim.adam(0.05))[0]
    assert (found["w"] != without["w"]).all()


def test_adamw_reads_a_schedule_of_its_weight_decay_at_each_step():
    opt = optim.adamw(1.0, weight_decay=lambda step: 0.5 * (step == 1))
    params, zero = torch.tensor([8.0], dtype=D), torch.zeros(1, dtype=D)
    state = opt.init(params)
    for wanted in (8.0, 4.0, 4.0):
        params, state = opt.step(zero, state, params)
        assert params.item() == wanted


def test_schedule_free_reads_its_rate_at_one_count():
    def rate(step):
        return 0.5 / (1 + step)

    opt, params = optim.schedule_free(optim.sgd(rate), rate, b1=0.5), torch.tensor([1.0], dtype=D)
    state, x, y, z, total = opt.init(params), 1.0, 1.0, 1.0, 0.0
    for step in range(4):
        params, state = opt.step(2 * params, state, params)
        z = z - rate(step) * 2 * y
        total += rate(0) ** 2  # the largest rate so far is the first one
        x = x + rate(0) ** 2 / total * (z - x)
        y = 0.5 * x + 0.5 * z
        assert params.item() == pytest.approx(y, rel=1e-12)


def test_schedule_free_weights_a_warm_up_by_the_rates_of_its_steps():
    opt, params = optim.schedule_free_sgd(0.1, warmup_steps=2), torch.tensor([1.0], dtype=D)
    state = opt.init(params)
    for wanted in (0.0, 0.05**2, 0.05**2 + 0.1**2):  # the sums of the squared rates 0, 0.05 and 0.1
        params, state = opt.step(torch.ones(1, dtype=D), state, params)
        assert state.weight_sum.item() == pytest.approx(wanted)

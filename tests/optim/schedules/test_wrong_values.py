"""A schedule that returns no number is refused by name, with the step; NaN stays NaN."""

import re

import numpy as np
import pytest
import torch

from torchpure import optim

X = torch.tensor([1.0, 2.0])
WRONG = {
    "None": (None, "got None"), "str": ("a", "got str 'a'"), "complex": (1 + 2j, "got complex"), "bool": (True, "got"),
    "list": ([0.1], "got list of 1"), "vector": (torch.ones(1), re.escape("float32 tensor of shape (1,)")),
    "complex tensor": (torch.tensor(1j), "complex64 tensor"), "array": (np.ones(1), "got ndarray"),
}  # fmt: skip
USERS = {
    "sgd": optim.sgd,
    "adam": optim.adam,
    "lion": optim.lion,
    "prodigy": optim.prodigy,
    "schedule_free": optim.schedule_free_sgd,
    "weight decay": lambda schedule: optim.adamw(0.1, weight_decay=schedule),
    "scale": optim.scale_by_schedule,
    "injected": lambda schedule: optim.inject_hyperparams(optim.sgd)(learning_rate=schedule),
    "joined": lambda schedule: optim.sgd(optim.join_schedules([schedule, schedule], [5])),
}


def stepped(user, value, step=0):
    optimizer = USERS[user](lambda count: value if count >= step else 0.1)
    params, state = X, optimizer.init(X)
    for _ in range(step + 1):
        params, state = optimizer.step(X, state, params)
    return params


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("user", USERS)
def test_the_error_names_the_schedule_and_the_step(user, name):
    value, got = WRONG[name]
    message = rf"^the schedule `<lambda>` \(test_wrong_values.py:\d+\) must return a number or a real tensor .*{got}.*"
    with pytest.raises(TypeError, match=message + " at step 0$"):
        stepped(user, value)


def test_a_later_step():
    with pytest.raises(TypeError, match="got None at step 2$"):
        stepped("sgd", None, 2)


@pytest.mark.parametrize("user", USERS)
def test_nan_stays_nan(user):
    assert stepped(user, float("nan")).isnan().all()


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), 0.5])
def test_numbers_of_any_kind(value):
    torch.testing.assert_close(stepped("sgd", value), X / 2)


@pytest.mark.parametrize("value", [None, "a", 1j, lambda step: 0.1])
def test_hyper_parameters_that_are_no_numbers(value):
    for make in (
        lambda: optim.rprop(value),
        lambda: optim.adam(0.1, b1=value),
        lambda: optim.adam(0.1, eps=value),
        lambda: optim.kron(key=torch.zeros(2, dtype=torch.int64), precond_init_scale=value),
        lambda: optim.lbfgs(memory_size=value),
    ):
        with pytest.raises(TypeError, match=r"^\w+: \w+ must be a number or a tensor of shape \(\), got "):
            make()

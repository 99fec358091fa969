"""Steps of optimizers that were wrong once, or errors that were raw."""

import io

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import StructureError

pytestmark = pytest.mark.faults
D = torch.float64


def test_from_torch_step_counts():
    params = {"first": nn.Parameter(torch.ones(2)), "second": nn.Parameter(torch.ones(2))}
    theirs, ours = torch.optim.Adam(params.values(), lr=0.2), tp.optim.adam(0.2)
    for names in (["first"], ["first"], ["first", "second"]):
        theirs.zero_grad()
        sum((params[name] ** 2).sum() for name in names).backward()
        theirs.step()
    with pytest.raises(StructureError, match="^from_torch: the parameters have 1, 3 steps, .* an optimizer of its own"):
        tp.optim.from_torch(theirs.state_dict(), ours.init({name: leaf.detach() for name, leaf in params.items()}))


def test_half_precision_means():
    one, zero = torch.ones(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)
    mean, adam = tp.optim.ema(0.999), tp.optim.adam(1.0, mu_dtype=torch.float32)
    for optimizer, wanted in ((mean, 1.0), (adam, -1.0)):
        state = optimizer.init(zero)
        for _ in range(1000):
            updates, state = optimizer.update(one, state, zero)
        assert float(updates) == pytest.approx(wanted, abs=0.01)
    many = tp.optim.multi_steps(tp.optim.sgd(1.0), 512)
    params, state = zero, many.init(zero)
    for number in range(512):
        params, state = many.step(one * (1 if number < 256 else 5), state, params)
    assert float(params) == -3.0


@pytest.mark.parametrize("form", ["optax", "scipy"])
def test_lbfgs_past_the_optimum(form):
    square = lambda x: (x * x).sum()  # noqa: E731
    optimizer, x = tp.optim.lbfgs(form=form), torch.tensor([2.0, -3.0])
    state = optimizer.init(x)
    for _ in range(12):
        value, grad = tp.value_and_grad(square)(x)
        x, state = optimizer.step(grad, state, x, value=value, grad=grad, value_fn=square)
    assert_close(x, torch.zeros(2), rtol=0, atol=1e-6)


def test_module_as_params():
    module, optimizer = nn.Linear(2, 2), tp.optim.adam(0.1)
    state = optimizer.init(tp.functional(module).params)
    calls = [
        lambda: optimizer.init(module), lambda: optimizer.init(module.parameters()),
        lambda: optimizer.step(module, state, module),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(
            TypeError, match=r"^adam: wanted a tree of tensors.*, got .*: pass tp.functional\(module\).params"
        ):
            call()


def test_one_member_kills_a_sweep():
    target = 2 * torch.eye(3)

    def train(key, rate):
        optimizer = tp.optim.galore(rate, rank=2, base_optimizer=tp.optim.sgd(rate))

        def step(carry, _):
            params, state = carry
            loss, grads = tp.value_and_grad(lambda p: ((p - target) ** 2).sum())(params)
            return optimizer.step(grads, state, params), loss

        start = torch.eye(3)
        return tp.scan(step, (start, optimizer.init(start)), length=150)[1][-1]

    alone = tp.sweep(train, {"rate": [0.01]}, key=tp.random.key(0), jit=False).results
    good, bad = tp.sweep(train, {"rate": [0.01, 3.0]}, key=tp.random.key(0), jit=False).results
    assert_close(good, alone[0])
    assert good.isfinite() and not bad.isfinite()


@pytest.mark.parametrize("value", [2.0, -2.0])
def test_plateau_of_negative_values(value):
    optimizer, zero = tp.optim.reduce_on_plateau(0.1, patience=2), torch.zeros(1)
    state = optimizer.init(zero)
    for _ in range(8):
        updates, state = optimizer.update(torch.ones(1), state, zero, value=torch.tensor(value))
    assert_close(updates, torch.full((1,), 1e-3), rtol=1e-6, atol=0)


def test_plateau_keeps_the_best_value():
    optimizer, zero = tp.optim.reduce_on_plateau(0.1, patience=2), torch.zeros(1)
    state = optimizer.init(zero)
    for number in range(8):
        state = optimizer.update(torch.ones(1), state, zero, value=torch.tensor(-10 + number * 1e-4, dtype=D))[1]
    assert float(state.best_value) == -10


def test_state_of_other_params():
    optimizer, params = tp.optim.adam(0.1), {"w": torch.ones(3)}
    others = [
        optimizer.init({"w": torch.ones(1)}),
        optimizer.init({"w": torch.ones(2)}),
        tp.optim.sgd(0.1).init(params),
    ]
    for state in (*others, params):
        with pytest.raises(StructureError, match="^adam: .*state"):
            optimizer.step(params, state, params)


def test_torch_load_of_states():
    state, file = tp.optim.adam(0.1).init({"w": torch.ones(2)}), io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    found = torch.load(file)
    assert type(found) is tp.optim.AdamState
    assert_close(found, state)


NEED_PARAMETERS = ["add_decayed_weights", "novograd", "lars", "fromage", "dog", "lamb", "adafactor"]


@pytest.mark.parametrize("name", NEED_PARAMETERS)
def test_update_without_params(name):
    optimizer, params = getattr(tp.optim, name)(0.1), torch.tensor([1.0])
    with pytest.raises(StructureError, match=r"^\w+: the parameters are None: pass them"):
        optimizer.update(torch.tensor([5.0]), optimizer.init(params), None)

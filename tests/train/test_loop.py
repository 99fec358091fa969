"""The loop step by step, all kinds of batches, and values that training must not change."""

import itertools

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import random
from torchpure.errors import ImpureError, ParameterError, TransformError
from torchpure.train import loop, mean_square, minibatches

X = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
Y = torch.sin(3 * X)


def network():
    net = tp.functional(nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)).double())
    return tp.functional(net.to_module(*net.init(random.key(2))))


OPTIMIZERS = {
    "sgd": lambda: tp.optim.sgd(0.1),
    "momentum": lambda: tp.optim.sgd(0.1, momentum=0.9),
    "adamw": lambda: tp.optim.adamw(0.05, weight_decay=0.1),
}
FORMS = {"dict": dict, "tuple": lambda p: tuple(p.values()), "nested": tp.model.nested}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_step_equals_a_step_by_hand(name, form):
    net, optimizer = network(), OPTIMIZERS[name]()
    start = FORMS[form](net.params)
    batches = [(X[i::3], Y[i::3]) for i in (0, 1, 2, 0)]

    def loss(p, x, y):
        return mean_square(net(p, x), y)

    params, state = start, optimizer.init(start)
    for number, (progress, batch) in enumerate(zip(loop(loss, start, batches, optimizer), batches, strict=True), 1):
        value, grads = tp.value_and_grad(loss)(params, *batch)
        params, state = optimizer.step(grads, state, params)
        assert progress.step == number and torch.equal(progress.loss, value) and progress.loss.shape == ()
        assert not progress.loss.requires_grad
        tp.tree.check_same(start, progress.params)
        for ours, theirs in (params, progress.params), (state, progress.opt_state):
            assert all(map(torch.equal, tp.tree.leaves(ours), tp.tree.leaves(theirs)))
    assert number == 4
    assert all(map(torch.equal, tp.tree.leaves(start), net.params.values()))


ASKING = {  # optimizers that ask for the loss, its value or its gradient
    "value": lambda: tp.optim.polyak_sgd(0.1),
    "value, in a chain": lambda: tp.optim.chain(tp.optim.sgd(0.1), tp.optim.reduce_on_plateau(patience=1)),
    "value, every other step": lambda: tp.optim.multi_steps(tp.optim.momo(0.1), 2),
    "value_fn": lambda: tp.optim.sophia(1e-2, key=random.key(1), update_interval=2),
    "all three": lambda: tp.optim.lbfgs(),
}


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("name", ASKING)
def test_an_optimizer_gets_the_arguments_that_it_asks_for(name, stateful):
    net, optimizer = network(), ASKING[name]()
    batches = [(X[i::2], Y[i::2]) for i in (0, 1, 0, 1)]

    def counted(p, state, x, y):
        return mean_square(net(p, x), y) * (1 + state["steps"] / 10), {"steps": state["steps"] + 1}

    def loss(p, *batch):
        return counted(p, *batch)[0] if stateful else mean_square(net(p, batch[0]), batch[1])

    state = {"steps": torch.tensor(0.0, dtype=torch.float64)} if stateful else None
    told = list(loop(counted if stateful else loss, net.params, batches, optimizer, state=state))
    params, opt_state = net.params, optimizer.init(net.params)
    for progress, batch in zip(told, batches, strict=True):
        given = (state, *batch) if stateful else batch
        value_fn = lambda p, given=given: loss(p, *given)  # noqa: E731
        value, grads = tp.value_and_grad(value_fn)(params)
        params, opt_state = optimizer.step(grads, opt_state, params, value=value, grad=grads, value_fn=value_fn)
        state = {"steps": state["steps"] + 1} if stateful else None
        assert torch.equal(progress.loss, value)
        assert all(map(torch.equal, tp.tree.leaves(progress.params), tp.tree.leaves(params)))


def test_a_run_can_be_continued():
    net, optimizer = network(), tp.optim.adam(0.05)

    def loss(p, x, y):
        return mean_square(net(p, x), y)

    whole = list(loop(loss, net.params, [(X, Y)] * 6, optimizer))
    half = list(loop(loss, net.params, [(X, Y)] * 3, optimizer))[-1]
    rest = list(loop(loss, half.params, [(X, Y)] * 3, optimizer, half.opt_state))
    assert [one.step for one in rest] == [1, 2, 3]
    assert all(map(torch.equal, tp.tree.leaves(rest[-1].params), tp.tree.leaves(whole[-1].params)))


def test_fit_does_not_change_the_module_and_starts_at_given_params():
    module = network().to_module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    start = tp.functional(module).init(random.key(9))[0]
    one = tp.fit(module, (X, Y), optimizer=tp.optim.sgd(0.1), steps=3, params=start)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    net = tp.functional(module)
    assert torch.equal(one.history[0], mean_square(net(start, X), Y))
    other = tp.fit(net, (X, Y), optimizer=tp.optim.sgd(0.1), steps=3, params=tuple(start.values()))
    assert torch.equal(one.history, other.history) and isinstance(other.params, tuple)
    assert all(not value.requires_grad for value in one.params.values())


def test_frozen_parameters_stay_bit_for_bit_and_start_at_given_params():
    module = network().to_module()
    module[0].requires_grad_(False)
    net = tp.functional(module)
    assert net.trainable == ("2.weight", "2.bias")
    start = tp.tree.scale(net.params, 1.5)
    result = tp.fit(
        net,
        (X, Y),
        optimizer=tp.optim.adamw(0.1, weight_decay=0.5),
        steps=4,
        params=start,
        batch_size=5,
        key=random.key(0),
    )
    assert list(result.params) == list(net.params)
    for name in net.params:
        assert torch.equal(result.params[name], start[name]) == name.startswith("0."), name
    assert set(result.opt_state.mean) == {"2.weight", "2.bias"}


def test_everything_frozen_is_an_error():
    module = network().to_module().requires_grad_(False)
    with pytest.raises(TransformError, match="nothing to differentiate"):
        tp.fit(module, (X, Y), optimizer=tp.optim.sgd(0.1), steps=1)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_minibatches_cover_the_rows(size):
    rows = torch.arange(12)
    count = -(-12 // size)
    made = minibatches(random.key(1), (rows, rows[:, None] * 2), size)
    for _ in range(3):
        epoch = [next(made) for _ in range(count)]
        assert sorted(torch.cat([one for one, _ in epoch]).tolist()) == list(range(12))
        assert all(torch.equal(two[:, 0], 2 * one) for one, two in epoch)
        assert [len(one) for one, _ in epoch[:-1]] == [size] * (count - 1)


def test_minibatches_depend_only_on_the_key():
    def orders(seed):
        torch.rand(3)  # the global generator has no influence
        return [one.tolist() for (one,) in itertools.islice(minibatches(random.key(seed), (torch.arange(12),), 5), 9)]

    assert orders(0) == orders(0) != orders(1)
    net, before = network(), torch.get_rng_state()
    result = tp.fit(net, (X, Y), optimizer=tp.optim.sgd(0.1), steps=9, batch_size=5, key=random.key(0))
    assert torch.equal(torch.get_rng_state(), before) and result.history.shape == (9,)


class Reader:
    """Counts how often it is read from the start, like a data loader."""

    def __init__(self):
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        yield [X[:6], Y[:6]]
        yield (X[6:], Y[6:])


def test_an_iterable_is_repeated_and_not_read_ahead():
    reader = Reader()
    assert tp.fit(network(), reader, optimizer=tp.optim.sgd(0.1), steps=5).history.shape == (5,)
    assert reader.reads == 3
    batches = iter([(X, Y)] * 5)
    tp.fit(network(), batches, optimizer=tp.optim.sgd(0.1), steps=3)
    assert len(list(batches)) == 2


def test_a_batch_that_is_no_tuple_is_one_argument():
    def loss(p, batch):
        return ((p - (batch["x"] if isinstance(batch, dict) else batch)) ** 2).mean()

    for data in (torch.ones(4), [torch.ones(4)], [{"x": torch.ones(4)}]):
        result = tp.fit(loss, data, params=torch.tensor(0.0), optimizer=tp.optim.sgd(0.25), steps=2)
        assert result.params == 0.75 and result.state == {}


def test_history_keeps_the_dtype_and_holds_no_graph():
    weight = torch.ones(3, requires_grad=True)
    result = tp.fit(
        lambda p, x: (p * x.double()).square().mean(),
        torch.ones(2, 3),
        params=torch.ones(3, dtype=torch.float64),
        optimizer=tp.optim.sgd(0.1),
        steps=2,
    )
    assert result.history.dtype == torch.float64 and not result.history.requires_grad
    assert weight.grad is None


def test_the_state_of_the_module_is_returned():
    module = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    result = tp.fit(module, (X, Y), optimizer=tp.optim.sgd(0.1), steps=3)
    still = tp.fit(tp.functional(module.eval()), (X, Y), optimizer=tp.optim.sgd(0.1), steps=1)
    assert all(torch.equal(still.state[name], value) for name, value in module.named_buffers())
    optimizer = torch.optim.SGD(module.train().parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(module(X), Y).backward()
        optimizer.step()
    for name, value in {**dict(module.named_buffers()), **dict(module.named_parameters())}.items():
        torch.testing.assert_close({**result.state, **result.params}[name], value.detach(), rtol=1e-12, atol=1e-14)


def test_a_module_that_draws_is_an_error():
    with pytest.raises(ImpureError, match="`dropout` in `1` needs a key"):
        tp.fit(nn.Sequential(nn.Linear(1, 1), nn.Dropout()).double(), (X, Y), optimizer=tp.optim.sgd(0.1), steps=1)


ERRORS = {
    "steps": ({"steps": 2.0}, ValueError, "fit: steps must be an integer, at least 0, got 2.0"),
    "bool": ({"steps": True}, ValueError, "fit: steps must be an integer, at least 0, got True"),
    "batch size 0": (
        {"batch_size": 0, "key": random.key(0)},
        ValueError,
        "batch_size must be an integer, at least 1, got 0",
    ),
    "vector loss": ({"loss": lambda out, y: out - y}, TransformError, r"must return a real tensor of shape \(\)"),
    "params": ({"params": {"0.weight": X}}, ParameterError, "missing `0.bias`"),
    "function with loss": (
        {"model": lambda p, x: p, "params": X, "loss": mean_square},
        ValueError,
        "a loss function needs params to start from, and takes no loss=",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_messages(name):
    change, error, message = ERRORS[name]
    options = {"model": network(), "data": (X, Y), "optimizer": tp.optim.sgd(0.1), "steps": 2, **change}
    with pytest.raises(error, match=message):
        tp.fit(options.pop("model"), options.pop("data"), **options)


def test_mean_square_needs_equal_shapes():
    assert mean_square(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])) == 2
    with pytest.raises(
        ValueError, match=r"the model returns .* \(2, 1\), the target is .* \(2,\): reshape one of them"
    ):
        mean_square(torch.ones(2, 1), torch.ones(2))


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.compile)])
@pytest.mark.parametrize("form", [lambda x: {"x": x}, lambda x: x, lambda x: (x,), lambda x: [x]])
def test_a_batch_of_a_loop_that_is_no_tuple_is_one_argument(form, jit):
    def loss(p, batch):
        return ((batch["x"] if isinstance(batch, dict) else batch) * p).square().sum()

    x = torch.arange(3.0)
    *_, last = tp.train.loop(loss, torch.tensor(1.0), [form(x)] * 4, tp.optim.sgd(0.01), jit=jit, every=2)
    torch.testing.assert_close(last.params, torch.tensor((1 - 0.02 * 5.0) ** 4))


def test_a_module_without_parameters_is_refused():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [torch.nn.Linear(1, 1)]

        def forward(self, x):
            return self.layers[0](x)

    x = torch.ones(4, 1)
    with pytest.raises(ValueError, match="fit: Plain has no parameters to train.*ModuleList"):
        tp.fit(Plain(), (x, x), optimizer=tp.optim.sgd(0.1), steps=2)


def test_a_key_for_a_call_that_takes_none_names_apply():
    net = tp.functional(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout()))
    with pytest.raises(TypeError, match=r"Sequential.forward takes no `key`.*net.apply\(params, state"):
        net(net.params, torch.ones(2, 1), key=tp.random.key(0))

"""`loop` and `fit`."""

import itertools

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import random
from torchpure.errors import ImpureError
from torchpure.train import loop, minibatches

X = torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None]
Y = X**2


def module():
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    functional = tp.functional(net)
    return functional.to_module(*functional.init(random.key(0)))


def test_fit_equals_the_loop_equals_a_loop_by_hand():
    net, optimizer = tp.functional(module()), tp.optim.adam(0.05)
    result = tp.fit(net, (X, Y), optimizer=optimizer, steps=20)
    params, state, losses = net.params, optimizer.init(net.params), []
    for _ in range(20):
        loss, grads = tp.value_and_grad(lambda p: nn.functional.mse_loss(net(p, X), Y))(params)
        params, state = optimizer.step(grads, state, params)
        losses.append(loss)
    assert torch.equal(result.history, torch.stack(losses))
    for name, value in params.items():
        assert torch.equal(result.params[name], value)
    assert result.opt_state.step == 20 and result.history[-1] < result.history[0]
    last = list(loop(lambda p, x, y: nn.functional.mse_loss(net(p, x), y), net.params, [(X, Y)] * 20, optimizer))[-1]
    assert last.step == 20 and torch.equal(last.loss, losses[-1])
    again = tp.fit(net, (X, Y), optimizer=optimizer, steps=20, key=random.key(1))
    assert torch.equal(again.history, result.history)


def test_module_functional_and_loss_function_agree():
    net, optimizer = tp.functional(module()), tp.optim.sgd(0.1)
    loss = lambda p, x, y: ((net(p, x) - y) ** 2).mean()  # noqa: E731
    results = [
        tp.fit(net.to_module(), (X, Y), optimizer=optimizer, steps=5),
        tp.fit(net, [(X, Y)], optimizer=optimizer, steps=5),
        tp.fit(loss, (X, Y), params=net.params, optimizer=optimizer, steps=5),
        tp.fit(net, (X, Y), optimizer=optimizer, steps=5, loss=lambda out, y: ((out - y) ** 2).mean()),
        tp.fit(net, iter([(X, Y)] * 5), optimizer=optimizer, steps=5),
    ]
    for result in results[1:]:
        torch.testing.assert_close(result.history, results[0].history, rtol=1e-13, atol=0)


def test_frozen_parameters_do_not_change():
    frozen = module()
    frozen[0].weight.requires_grad_(False)
    net = tp.functional(frozen)
    result = tp.fit(frozen, (X, Y), optimizer=tp.optim.adamw(0.1, weight_decay=0.5), steps=5)
    assert list(result.params) == list(net.params)
    moved = [name for name in net.params if not torch.equal(result.params[name], net.params[name])]
    assert moved == ["0.bias", "2.weight", "2.bias"]


def test_minibatches_cover_each_row_once_per_epoch_and_depend_on_the_key():
    rows = torch.arange(10)
    batches = list(itertools.islice(minibatches(random.key(0), (rows, rows * 2), 4), 6))
    for epoch in (batches[:3], batches[3:]):
        assert sorted(torch.cat([one for one, _ in epoch]).tolist()) == list(range(10))
        assert all(torch.equal(two, 2 * one) for one, two in epoch)
    assert not torch.equal(batches[0][0], batches[3][0])

    def run(seed):
        return tp.fit(
            module(), (X, Y), optimizer=tp.optim.sgd(0.1), steps=7, batch_size=4, key=random.key(seed)
        ).history

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))


def test_no_steps_return_the_start():
    net = tp.functional(module())
    result = tp.fit(net, (X, Y), optimizer=tp.optim.sgd(0.1), steps=0)
    assert result.history.shape == (0,) and torch.equal(result.params["0.weight"], net.params["0.weight"])


ERRORS = {
    "steps": ({"steps": -1}, ValueError, "fit: steps must be an integer, at least 0, got -1"),
    "rows": ({"data": (X, Y[:3])}, ValueError, "must have the same number of rows"),
    "no rows": ({"data": (X[:0], Y[:0])}, ValueError, "fit: data has no rows"),
    "scalar": ({"data": (X, torch.tensor(1.0))}, ValueError, "must have the same number of rows"),
    "no key": ({"batch_size": 2}, ValueError, "minibatches are drawn from a key: pass key"),
    "batch size": ({"batch_size": 11, "key": random.key(0)}, ValueError, r"batch_size must be in 1 … 10.*got 11"),
    "batch size of batches": ({"data": [(X, Y)], "batch_size": 2}, ValueError, "batch_size is for tensors"),
    "kind": ({"data": 3}, TypeError, "data must be tensors or an iterable of batches, got int 3"),
    "too short": ({"data": iter([(X, Y)])}, ValueError, "the batches ended after 1 of 3 steps"),
    "empty": ({"data": []}, ValueError, "the batches ended after 0 of 3 steps"),
    "shapes": ({"data": (X, Y[:, 0])}, ValueError, r"the model returns .* \(10, 1\), the target is .* \(10,\)"),
    "loss without params": ({"model": lambda p, x: p}, ValueError, "a loss function needs params"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_messages(name):
    change, error, message = ERRORS[name]
    options = {"model": module(), "data": (X, Y), "optimizer": tp.optim.sgd(0.1), "steps": 3, **change}
    with pytest.raises(error, match=message):
        tp.fit(options.pop("model"), options.pop("data"), **options)


def test_frozen_parameters_need_a_dict():
    frozen = module()
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="a module with frozen parameters needs params as a dict"):
        tp.fit(frozen, (X, Y), optimizer=tp.optim.sgd(0.1), steps=1, params=tuple(frozen.parameters()))


def test_a_module_with_state_and_draws_can_be_fitted():
    module = nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.05), nn.Linear(16, 1))
    x = torch.linspace(-2, 2, 64).unsqueeze(1)
    net, options = tp.functional(module), {"optimizer": tp.optim.adam(1e-2), "steps": 150, "batch_size": 16}
    result = tp.fit(net, (x, x.sin()), key=tp.random.key(0), **options)
    again = tp.fit(net, (x, x.sin()), key=tp.random.key(0), **options)
    assert torch.equal(result.history, again.history)
    assert result.state["1.num_batches_tracked"] == 150 and net.state["1.num_batches_tracked"] == 0
    output, _ = net.apply(result.params, result.state, x, train=False)
    assert (output - x.sin()).square().mean() < 0.05
    with pytest.raises(ImpureError, match="needs a key"):
        tp.fit(net, (x, x.sin()), optimizer=tp.optim.adam(1e-2), steps=1)

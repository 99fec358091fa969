"""Tests of `lift`: optimizers of torch as pure functions."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import optim, testing
from torchpure.errors import TransformError

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
CLASSES = {
    "SGD": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
    "Adam": (torch.optim.Adam, {"lr": 0.05, "amsgrad": True}),
    "RAdam": (torch.optim.RAdam, {"lr": 0.05}),
    "ASGD": (torch.optim.ASGD, {"lr": 0.05}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.05}),
    "Adafactor": (torch.optim.Adafactor, {"lr": 0.05}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.05}),
    "Adadelta": (torch.optim.Adadelta, {"lr": 0.5}),
}


def _net():
    net = tp.functional(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double())
    return net, lambda p: (net(p, X) - X.prod(1, keepdim=True)).square().sum()


@pytest.mark.parametrize("name", CLASSES)
def test_twenty_steps_equal_torch(name):
    kind, options = CLASSES[name]
    net, loss = _net()
    optimizer, params = optim.lift(kind, **options), net.params
    state, before = optimizer.init(params), tp.tree.map(torch.clone, net.params)
    module = net.to_module()
    theirs = kind(module.parameters(), **options)
    for _ in range(20):
        grads = tp.grad(loss)(params)
        kept = tp.tree.map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, state)
        once, twice = optimizer.step(grads, state, params), optimizer.step(grads, state, params)
        testing.assert_trees_close(once, twice, rtol=0.0)
        testing.assert_trees_close(state, kept, rtol=0.0)
        params, state = once
        theirs.zero_grad()
        (module(X) - X.prod(1, keepdim=True)).square().sum().backward()
        theirs.step()
    testing.assert_trees_close(params, {k: v.detach() for k, v in module.named_parameters()}, rtol=1e-12)
    testing.assert_trees_close(net.params, before, rtol=0.0)


def test_leaves_without_gradient_do_not_change():
    params = {"w": torch.ones(2), "frozen": torch.ones(2), "n": 3}
    optimizer = optim.lift(torch.optim.Adam, lr=0.1)
    moved, _ = optimizer.step({"w": torch.ones(2), "frozen": None, "n": None}, optimizer.init(params), params)
    assert moved["frozen"] is params["frozen"] and moved["n"] == 3 and (moved["w"] < 1).all()
    assert optimizer.step({}, optimizer.init({}), {})[0] == {}


def test_lift_under_a_transform_is_an_error():
    optimizer, params = optim.lift(torch.optim.SGD, lr=0.1), torch.ones(2)
    for call in (
        lambda: tp.vmap(lambda p: optimizer.step(p, optimizer.init(p), p)[0])(torch.ones(3, 2)),
        lambda: tp.jvp(lambda p: optimizer.step(p, optimizer.init(p), p)[0], (params,), (params,)),
    ):
        with pytest.raises(TransformError, match="lift: SGD changes tensors in place, which no transform can follow"):
            call()

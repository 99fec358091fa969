"""An ensemble: several members of one architecture as one net."""

import re

import pytest
import torch
from models import MODELS, Tied, net_of
from torch import nn

import torchpure as tp
from torchpure import random
from torchpure.errors import StructureError

NAMES = ["mlp", "batch norm", "cumulative batch norm", "gru", "dropout", "tied", "running average", "drawn parameters"]
X = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)


def _close(one, two):
    for a, b in zip(tp.tree.leaves(one), tp.tree.leaves(two), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_law_a_member_equals_the_net(name, num):
    net, inputs = net_of(tp.functional, MODELS[name]), MODELS[name].inputs()
    many, key = tp.ensemble(net, num), random.key(1)
    params, state = many.init(key)
    outputs, after = many.apply(params, state, *inputs, key=key)
    _, again = many.apply(params, after, *inputs, key=key)
    for i, (k_init, k_call) in enumerate(zip(random.split(key, num), random.split(key, num), strict=True)):
        own, own_state = net.init(k_init)
        _close(tp.unstack(params)[i], own)
        output, own_after = net.apply(own, own_state, *inputs, key=k_call)
        _close(tp.tree.map(lambda leaf: leaf[i], outputs), output)  # noqa: B023
        if own_state:
            _close(tp.unstack(after)[i], own_after)
            _close(tp.unstack(again)[i], net.apply(own, own_after, *inputs, key=k_call)[1])


@pytest.mark.parametrize("num", [1, 2])
def test_gradients_and_calls_of_members(num):
    net = net_of(tp.functional, MODELS["mlp"])
    many = tp.ensemble(net, num)
    params, _ = many.init(random.key(0))
    grads = tp.grad(lambda p: many(p, X).square().sum())(params)
    _, slopes = tp.jvp(lambda p: many(p, X), (params,), (params,))
    for i, own in enumerate(tp.unstack(params)):
        _close(tp.unstack(grads)[i], tp.grad(lambda p: net(p, X).square().sum())(own))
        _close(slopes[i], tp.jvp(lambda p: net(p, X), (own,), (own,))[1])
    _close(tp.vmap(lambda x: many(params, x), out_dims=1)(X), many(params, X).movedim(0, 0))


@pytest.mark.parametrize("num", [1, 3])
def test_each_member_can_have_its_own_inputs(num):
    net = net_of(tp.functional, MODELS["mlp"])
    rows = torch.stack([X + i for i in range(num)], 1)
    many = tp.ensemble(net, num, in_dims=1)
    outputs = many(many.params, rows)
    for i in range(num):
        _close(outputs[i], net(net.params, rows[:, i]))
    _close(many.apply(many.params, {}, rows)[0], outputs)


def test_members_can_be_a_list_of_nets():
    modules = [Tied(), Tied(), Tied()]
    modules[1].words.weight.requires_grad_(False)
    many = tp.ensemble(modules)
    assert many.trainable == ("words.weight",) and many.params["words.weight"].shape == (3, 7, 4)
    words = torch.tensor([[1, 2]])
    for i, module in enumerate(modules):
        torch.testing.assert_close(many(many.params, words)[i], module(words).detach())
    back = many.to_module()
    assert isinstance(back, nn.ModuleList) and back[1].out.weight is back[1].words.weight
    assert [one.words.weight.requires_grad for one in back] == [True, False, True]
    scaled = tp.tree.scale(many.params, 2.0)
    torch.testing.assert_close(many.to_module(scaled)[2](words), many(scaled, words)[2])


def test_values_are_copies_of_the_nets():
    net = tp.functional(nn.Linear(2, 2))
    many = tp.ensemble(net, 2)
    assert many.params["weight"].is_contiguous() and torch.equal(many.params["weight"][1], net.params["weight"])
    many.params["weight"].zero_()
    assert net.params["weight"].abs().sum() > 0


def test_an_ensemble_is_trained_like_a_net():
    many = tp.ensemble(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), 3)
    params, _ = many.init(random.key(0))
    x = torch.linspace(-1, 1, 20).unsqueeze(1)

    def loss(p):
        return (many(p, x) - x.sin()).square().mean((1, 2)).sum()

    optimizer = tp.optim.adam(0.03)
    state, start = optimizer.init(params), loss(params)
    for _ in range(100):
        params, state = optimizer.step(tp.grad(loss)(params), state, params)
    assert loss(params) < 0.05 * start


def test_members_without_values_or_keys():
    assert torch.equal(tp.ensemble(nn.ReLU(), 2)({}, X), torch.stack([X.relu(), X.relu()]))
    assert tp.ensemble(nn.ReLU(), 1)({}, X).shape == (1, 4, 6)


def test_law_unstack_undoes_stack():
    trees = [{"w": torch.full((2,), float(i)), "n": None, "name": "a", "k": (torch.tensor(i),)} for i in range(3)]
    for one, two in zip(tp.unstack(tp.stack(trees)), trees, strict=True):
        assert tp.tree.structure(one) == tp.tree.structure(two)
        assert torch.equal(one["w"], two["w"]) and one["name"] == "a" and torch.equal(one["k"][0], two["k"][0])


NET = tp.ensemble(nn.Linear(2, 2), 3)
ERRORS = {
    "none": (lambda: tp.stack([]), StructureError, "stack: wanted at least one tree"),
    "shape": (
        lambda: tp.stack([{"w": torch.ones(2)}, {"w": torch.ones(3)}]),
        StructureError,
        "stack: `w` is a float32 tensor of shape (2,) in member 0 and a float32 tensor of shape (3,) in member 1",
    ),
    "dtype": (
        lambda: tp.stack([torch.ones(2), torch.ones(2).double()]),
        StructureError,
        "stack: `.` is a float32 tensor",
    ),
    "kind": (lambda: tp.stack([{"w": torch.ones(2)}, {"w": 3}]), StructureError, "and int 3 in member 1"),
    "value": (lambda: tp.stack([{"w": "a"}, {"w": "b"}]), StructureError, "stack: `w` is str 'a' in member 0"),
    "structure": (lambda: tp.stack([{"w": 1}, {"v": 1}]), StructureError, "stack: "),
    "no tensors": (
        lambda: tp.unstack({"w": 1}),
        StructureError,
        "unstack: the tree holds no tensors, so the number of members is unknown",
    ),
    "scalar": (
        lambda: tp.unstack(torch.tensor(1)),
        StructureError,
        "unstack: `.` wants a first dimension of some members",
    ),
    "ragged": (
        lambda: tp.unstack({"a": torch.ones(2), "b": torch.ones(3)}),
        StructureError,
        "unstack: `b` wants a first dimension of 2 members",
    ),
    "no number": (lambda: tp.ensemble(nn.Linear(1, 1)), TypeError, "wanted a number of members, at least 1, got None"),
    "other number": (
        lambda: tp.ensemble([nn.Linear(1, 1)], 2),
        TypeError,
        "num=None or their number, got 1 net(s) and num=2",
    ),
    "architectures": (
        lambda: tp.ensemble([nn.Linear(1, 1), nn.Linear(1, 2)]),
        StructureError,
        "stack: `weight` is a float32 tensor of shape (1, 1) in member 0",
    ),
    "members": (
        lambda: NET(tp.tree.map(lambda leaf: leaf[:2], NET.params), torch.ones(1, 2)),
        StructureError,
        "ensemble: parameters and state: `0.weight` wants a first dimension of 3 members",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_messages(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=re.escape(message)):
        call()

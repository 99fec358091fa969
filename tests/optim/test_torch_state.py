"""Runs that go on in the other library."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import optim, testing
from torchpure.errors import StructureError

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
PAIRS = {
    "adam": (lambda: optim.adam(0.05), lambda p: torch.optim.Adam(p, 0.05)),
    "adamw": (lambda: optim.adamw(0.05, decay=0.1), lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1)),
    "momentum": (lambda: optim.sgd(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "chain": (
        lambda: optim.chain(optim.identity(), optim.adam(0.05)),
        lambda p: torch.optim.Adam(p, 0.05),
    ),
}


def _net():
    net = tp.functional(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double())
    return net, lambda p: (net(p, X) - X.prod(1, keepdim=True)).square().sum()


def _ours(optimizer, loss, params, state, steps):
    for _ in range(steps):
        params, state = optimizer.step(tp.grad(loss)(params), state, params)
    return params, state


def _theirs(module, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (module(X) - X.prod(1, keepdim=True)).square().sum().backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("name", PAIRS)
def test_law_a_state_goes_to_torch_and_comes_back(name):
    make, theirs = PAIRS[name]
    net, loss = _net()
    optimizer = make()
    params, state = _ours(optimizer, loss, net.params, optimizer.init(net.params), 5)
    module = net.to_module(params)
    torch_optimizer = theirs(module.parameters())
    torch_optimizer.load_state_dict(optim.to_torch(state, torch_optimizer.state_dict()))
    back = optim.from_torch(torch_optimizer.state_dict(), state)
    testing.assert_trees_close(back, state, rtol=0.0)
    there = _theirs(module, torch_optimizer, 5)
    here, after = _ours(optimizer, loss, params, back, 5)
    testing.assert_trees_close(here, there, rtol=1e-12, atol=1e-14)
    again = optim.from_torch(torch_optimizer.state_dict(), optimizer.init(params))
    more, _ = _ours(optimizer, loss, there, again, 5)
    testing.assert_trees_close(more, _ours(optimizer, loss, here, after, 5)[0], rtol=1e-11, atol=1e-13)


def test_plain_sgd_has_nothing_to_hand_over():
    params = {"w": torch.ones(2)}
    theirs = torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)
    state = optim.sgd(0.1).init(params)
    assert optim.from_torch(optim.to_torch(state, theirs.state_dict()), state).momentum is None


ERRORS = {
    "no part": (lambda d: optim.to_torch(optim.lion(0.1).init(torch.ones(2)), d), "got 0 of them"),
    "number": (
        lambda d: optim.to_torch(optim.adam(0.1).init((torch.ones(2), torch.ones(2))), d),
        "the state is for 2 parameters, the torch optimizer has 1",
    ),
    "new": (
        lambda d: optim.from_torch(d, optim.adam(0.1).init(torch.ones(2))),
        "wanted `exp_avg` for 1 parameters, the dict has it for 0",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(StructureError, match=message):
        call(torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict())

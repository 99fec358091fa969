"""Conversion of states to and from torch: runs that continue in the other library."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import optim, testing
from torchpure.errors import StructureError

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
PAIRS = {
    "adam": (lambda: optim.adam(0.05), lambda p: torch.optim.Adam(p, 0.05)),
    "adamw": (lambda: optim.adamw(0.05, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1)),
    "momentum": (lambda: optim.sgd(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "dampening": (
        lambda: optim.sgd(0.05, momentum=0.9, dampening=0.5),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, dampening=0.5),
    ),
    "chain": (
        lambda: optim.chain(optim.identity(), optim.adam(0.05)),
        lambda p: torch.optim.Adam(p, 0.05),
    ),
    "adadelta": (lambda: optim.adadelta(0.5), lambda p: torch.optim.Adadelta(p, 0.5)),
    "adafactor": (lambda: optim.adafactor(0.05, form="torch"), lambda p: torch.optim.Adafactor(p, 0.05)),
    "adagrad": (
        lambda: optim.adagrad(0.05, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False),
        lambda p: torch.optim.Adagrad(p, 0.05),
    ),
    "adamax": (lambda: optim.adamax(0.05), lambda p: torch.optim.Adamax(p, 0.05)),
    "amsgrad": (
        lambda: optim.amsgrad(0.05, correct_after_max=True),
        lambda p: torch.optim.Adam(p, 0.05, amsgrad=True),
    ),
    "asgd": (
        lambda: optim.asgd(0.05, lambd=1e-4, alpha=0.75, t0=3),
        lambda p: torch.optim.ASGD(p, 0.05, lambd=1e-4, alpha=0.75, t0=3),
    ),
    "nadam": (lambda: optim.nadam(0.05, momentum_decay=4e-3), lambda p: torch.optim.NAdam(p, 0.05)),
    "radam": (lambda: optim.radam(0.05, eps_on_corrected=False), lambda p: torch.optim.RAdam(p, 0.05)),
    "rmsprop": (
        lambda: optim.rmsprop(0.01, decay=0.99, momentum=0.9, centered=True, eps_in_sqrt=False),
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    ),
    "rprop": (lambda: optim.rprop(0.01), lambda p: torch.optim.Rprop(p, 0.01)),
}
ROUNDED = {"asgd", "nadam"}  # torch stores a number of their state in float32


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
def test_law_state_round_trip_through_torch(name):
    make, theirs = PAIRS[name]
    net, loss = _net()
    optimizer = make()
    params, state = _ours(optimizer, loss, net.params, optimizer.init(net.params), 5)
    module = net.to_module(params)
    torch_optimizer = theirs(module.parameters())
    torch_optimizer.load_state_dict(optim.to_torch(state, torch_optimizer.state_dict()))
    back = optim.from_torch(torch_optimizer.state_dict(), state)
    close = 1e-6 if name in ROUNDED else 1e-12
    testing.assert_trees_close(back, state, rtol=1e-7 if name == "nadam" else 0.0)
    there = _theirs(module, torch_optimizer, 5)
    here, after = _ours(optimizer, loss, params, back, 5)
    testing.assert_trees_close(here, there, rtol=close, atol=close / 100)
    again = optim.from_torch(torch_optimizer.state_dict(), optimizer.init(params))
    more, _ = _ours(optimizer, loss, there, again, 5)
    testing.assert_trees_close(more, _ours(optimizer, loss, here, after, 5)[0], rtol=10 * close, atol=close / 10)


def test_plain_sgd_converts_only_its_step():
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


def test_muon_state_round_trip_through_torch():
    params = {"a": torch.eye(3).double(), "b": torch.ones(2, 4).double()}
    grads = {"a": torch.arange(9.0).reshape(3, 3).double(), "b": torch.arange(8.0).reshape(2, 4).double()}
    optimizer = optim.muon(0.02, eps=1e-7, weight_decay=0.1, form="torch")
    params, state = optimizer.step(grads, optimizer.init(params), params)
    leaves = [nn.Parameter(params[name].clone()) for name in "ab"]
    theirs = torch.optim.Muon(leaves, lr=0.02)
    theirs.load_state_dict(optim.to_torch(state, theirs.state_dict()))
    testing.assert_trees_close(
        optim.from_torch(theirs.state_dict(), optimizer.init(params)).inner_states["muon"][0].mean,
        state.inner_states["muon"][0].mean,
        rtol=0.0,
    )
    for leaf, name in zip(leaves, "ab", strict=True):
        leaf.grad = grads[name].clone()
    theirs.step()
    params, _ = optimizer.step(grads, state, params)
    for leaf, name in zip(leaves, "ab", strict=True):
        torch.testing.assert_close(leaf.detach(), params[name], rtol=1e-12, atol=1e-12)


def test_schedules_continue_from_the_step_of_torch():
    params = torch.ones(2)
    theirs = torch.optim.Adam([leaf := nn.Parameter(torch.ones(2))], 0.1)
    for _ in range(3):
        leaf.grad = torch.ones(2)
        theirs.step()
    opt = optim.chain(optim.scale_by_adam(), optim.scale_by_schedule(lambda step: -0.1 * 0.5**step))
    state = optim.from_torch(theirs.state_dict(), opt.init(params))
    assert state[0].step.item() == 3 and state[1].step.item() == 3


def _torch_run(make, counts):
    """Step torch's optimizer on two parameters, each at the last `counts` steps of five."""
    leaves = [nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64)) for _ in counts]
    theirs = make(leaves)
    for number in range(5):
        _torch_step(theirs, [leaf for leaf, count in zip(leaves, counts, strict=True) if number >= 5 - count])
    return theirs, leaves


def _torch_step(theirs, leaves):
    theirs.zero_grad()
    for leaf in leaves:
        leaf.grad = 2 * leaf.detach()
    theirs.step()


def _next_step(opt, state, leaves):
    params = {name: leaf.detach().clone() for name, leaf in zip("wu", leaves, strict=True)}
    return opt.step({name: 2 * leaf for name, leaf in params.items()}, state, params)[0]


START = {"w": torch.ones(2, dtype=torch.float64), "u": torch.ones(2, dtype=torch.float64)}


@pytest.mark.parametrize("counts", [(5, 1), (2, 5), (5, 0)])
@pytest.mark.parametrize("name", ["adam", "adamw", "amsgrad", "nadam", "radam", "adamax", "adafactor"])
def test_different_step_counts_are_refused_with_the_way_out(name, counts):
    theirs, _ = _torch_run(PAIRS[name][1], counts)
    with pytest.raises(StructureError, match=f"have {min(counts)}, {max(counts)} steps.* as in partition"):
        optim.from_torch(theirs.state_dict(), PAIRS[name][0]().init(START))


@pytest.mark.parametrize("counts", [(5, 1), (2, 5), (5, 0)])
@pytest.mark.parametrize("name", ["adam", "amsgrad", "radam", "adamax", "adafactor", "momentum", "rmsprop"])
def test_a_partition_continues_from_different_step_counts(name, counts):
    ours, make = PAIRS[name]
    theirs, leaves = _torch_run(make, counts)
    opt = optim.partition({"w": ours(), "u": ours()})
    state = optim.from_torch(theirs.state_dict(), opt.init(START))
    here = _next_step(opt, state, leaves)
    back = make([nn.Parameter(leaf.detach().clone()) for leaf in leaves])
    back.load_state_dict(optim.to_torch(state, back.state_dict()))
    for optimizer, updated in ((theirs, leaves), (back, back.param_groups[0]["params"])):
        _torch_step(optimizer, updated)
        for key, leaf in zip("wu", updated, strict=True):
            torch.testing.assert_close(here[key], leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["momentum", "rmsprop", "adagrad", "adadelta", "rprop"])
def test_a_parameter_without_an_entry_starts_anew_where_the_step_count_does_not_matter(name):
    ours, make = PAIRS[name]
    theirs, leaves = _torch_run(make, (5, 0))
    opt = ours()
    here = _next_step(opt, optim.from_torch(theirs.state_dict(), opt.init(START)), leaves)
    _torch_step(theirs, leaves)
    for key, leaf in zip("wu", leaves, strict=True):
        torch.testing.assert_close(here[key], leaf.detach(), rtol=1e-12, atol=1e-12)


def test_frozen_parameters_of_a_partition_have_no_entry():
    theirs, leaves = _torch_run(PAIRS["adam"][1], (5, 0))
    opt = optim.chain(optim.identity(), optim.partition({"w": PAIRS["adam"][0](), "u": optim.set_to_zero()}))
    state = optim.from_torch(theirs.state_dict(), opt.init(START))
    here = _next_step(opt, state, leaves)
    _torch_step(theirs, leaves[:1])
    for key, leaf in zip("wu", leaves, strict=True):
        torch.testing.assert_close(here[key], leaf.detach(), rtol=1e-12, atol=1e-12)


def test_each_optimizer_of_a_partition_has_its_own_kind():
    w, u = (nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64)) for _ in range(2))
    opt = optim.partition({"w": optim.adam(0.05), "u": optim.sgd(0.05, momentum=0.9)})
    params, state = {"w": w.detach().clone(), "u": u.detach().clone()}, opt.init(START)
    for _ in range(3):
        params, state = opt.step({name: 2 * leaf for name, leaf in params.items()}, state, params)
    theirs = torch.optim.Adam([w, u], 0.05)
    found = optim.to_torch(state, theirs.state_dict())["state"]
    assert found[0].keys() == {"step", "exp_avg", "exp_avg_sq"} and found[1].keys() == {"step", "momentum_buffer"}
    testing.assert_trees_close(optim.from_torch({**theirs.state_dict(), "state": found}, state), state, rtol=0.0)


def test_dampening_begins_with_the_second_step_also_after_a_change_of_library():
    leaf = nn.Parameter(torch.ones(2, dtype=torch.float64))
    theirs = torch.optim.SGD([leaf], 0.1, momentum=0.9, dampening=0.5)

    def step():
        theirs.zero_grad()
        leaf.square().sum().backward()
        theirs.step()

    step()
    ours, params = optim.sgd(0.1, momentum=0.9, dampening=0.5), [leaf.detach().clone()]
    state = optim.from_torch(theirs.state_dict(), ours.init(params))
    step()
    torch.testing.assert_close(ours.step([2 * params[0]], state, params)[0], [leaf.detach()])

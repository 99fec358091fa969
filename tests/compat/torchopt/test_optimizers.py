"""Functional optimizers, FuncOptimizer, stateful and Meta optimizers: the numbers are torchopt's."""

import importlib

import pytest
import torch
from torch import nn

import torchpure.compat.torchopt as ours

theirs = pytest.importorskip("torchopt")

CASES = {
    "adam": ("adam", {}),
    "adam, all": (
        "adam",
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "eps_root": 1e-3, "maximize": True},
    ),
    "adam, accelerated": ("adam", {"lr": 0.05, "use_accelerated_op": True}),
    "adam, schedule": ("adam", {"lr": lambda count: 0.1 / (1 + count)}),
    "adamw": ("adamw", {"lr": 0.05}),
    "adamw, all": ("adamw", {"lr": 0.05, "weight_decay": 0.3, "maximize": True, "eps_root": 1e-4}),
    "sgd": ("sgd", {"lr": 0.1}),
    "sgd, momentum": ("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "sgd, dampening": ("sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
    "sgd, nesterov": ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True, "weight_decay": 0.2}),
    "rmsprop": ("rmsprop", {}),
    "rmsprop, centered": ("rmsprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.1, "initial_scale": 0.1}),
    "rmsprop, nesterov": ("rmsprop", {"momentum": 0.5, "nesterov": True, "maximize": True}),
    "adagrad": ("adagrad", {}),
    "adagrad, all": (
        "adagrad",
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1, "maximize": True},
    ),
    "adadelta": ("adadelta", {"lr": 1.0, "weight_decay": 0.1}),
    "adamax": ("adamax", {"lr": 0.05, "weight_decay": 0.1}),
    "radam": ("radam", {"lr": 0.05, "weight_decay": 0.1}),
}
STATEFUL = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSProp", "adagrad": "AdaGrad"}
STATEFUL |= {"adadelta": "AdaDelta", "adamax": "AdaMax", "radam": "RAdam"}


@pytest.fixture(autouse=True)
def exact_bias_correction(monkeypatch):
    """Let torchopt compute 1 − betaᵗ in float64; its own falls to float32, see test_better.py."""

    def power(base, count):
        return base ** count.double() if isinstance(count, torch.Tensor) else base**count

    for module in ("transform.scale_by_adam", "accelerated_op._src.adam_op"):
        monkeypatch.setattr(importlib.import_module(f"torchopt.{module}"), "pow", power, raising=False)
    monkeypatch.setattr(
        "torchopt.accelerated_op.adam_op.adam_op", importlib.import_module("torchopt.accelerated_op._src.adam_op")
    )


def make_params(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 2), (2,), ())
    return tuple(torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes)


def loss_of(params, step):
    w, b, s = params
    x = torch.linspace(-1, 1, 6, dtype=w.dtype).reshape(2, 3) + 0.1 * step
    return ((x @ w + b).tanh() * s).square().sum() + w.cos().sum() + s.sin()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_updates_are_those_of_torchopt(name, inplace):
    factory, options = CASES[name]
    results = []
    for library in (ours, theirs):
        optimizer, params = getattr(library, factory)(**options), make_params()
        state = optimizer.init(params)
        for step in range(12):
            grads = torch.autograd.grad(loss_of(params, step), params)
            updates, state = optimizer.update(grads, state, params=params, inplace=inplace)
            params = library.apply_updates(params, updates, inplace=inplace)
            params = tuple(p.detach().requires_grad_() for p in params)
        results.append(params)
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_states_have_the_fields_of_torchopt(name):
    factory, options = CASES[name]
    states = []
    for library in (ours, theirs):
        optimizer, params = getattr(library, factory)(**options), make_params()
        grads = torch.autograd.grad(loss_of(params, 0), params)
        states.append(optimizer.update(grads, optimizer.init(params), params=params, inplace=False)[1])
    names = [[getattr(part, "_fields", ()) for part in (s if type(s) is tuple else (s,))] for s in states]
    assert names[0] == names[1]
    leaves = [theirs.pytree.tree_leaves(s) for s in states]
    torch.testing.assert_close(*leaves, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("adam, acc")])
def test_meta_gradients_are_those_of_torchopt(name):
    factory, options = CASES[name]
    results = []
    for library in (ours, theirs):
        optimizer = library.FuncOptimizer(getattr(library, factory)(**options))
        first = params = make_params()
        for step in range(3):
            params = optimizer.step(loss_of(params, step), params)
        results.append((params, torch.autograd.grad(loss_of(params, 9), first)))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_stateful_optimizers_step_as_those_of_torchopt(name):
    factory, options = CASES[name]
    results = []
    for library in (ours, theirs):
        params = make_params()
        optimizer = getattr(library, STATEFUL[factory])(params, **{"lr": 1e-2} | options)
        for step in range(5):
            optimizer.zero_grad()
            loss_of(params, step).backward()
            optimizer.step()
        results.append((params, [p.grad for p in params] if factory == "sgd" else []))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in CASES if "accelerated" not in name and "max" not in name])
def test_meta_optimizers_step_as_those_of_torchopt(name):
    factory, options = CASES[name]
    results = []
    for library in (ours, theirs):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
        first = tuple(net.parameters())
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        optimizer = getattr(library, f"Meta{STATEFUL[factory]}")(net, **{"lr": 1e-2} | options)
        for step in range(3):
            x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2) + step
            optimizer.step((net(x) - scale).square().mean())
        outer = net(torch.ones(1, 2, dtype=torch.float64)).sum()
        results.append((outer, torch.autograd.grad(outer, (scale, *first))))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)

"""Calls of an ensemble with one member, and initialisation of a thousand members of the article's network."""

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import torchpure as tp

from ._harness import Run, report, times

OURS, ALONE = "torchpure", "the net alone"


def _repeat(call) -> Run:
    def run(count: int) -> None:
        for _ in range(count):
            call()

    return run


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))


def main() -> None:
    """Compare calls of one member, and the initialisation of a thousand."""
    layers = [layer for _ in range(8) for layer in (nn.Linear(5, 5), nn.Tanh())]
    module, x = nn.Sequential(*layers), torch.linspace(-1, 1, 200).reshape(40, 5)
    net, one = tp.functional(module), tp.ensemble(module, 1)
    state, _ = stack_module_state([module])
    programs = {
        OURS: _repeat(lambda: one(one.params, x)),
        ALONE: _repeat(lambda: net(net.params, x)),
        "vmap of functional_call": _repeat(lambda: vmap(lambda p: functional_call(module, p, (x,)))(state)),
    }
    settings = {
        OURS: "ensemble(net, 1)(params, x)",
        ALONE: "net(params, x)",
        "vmap of functional_call": "torch.func.vmap over parameters stacked by stack_module_state",
    }
    report("ensemble: one member, 8 × (Linear + Tanh)", times(programs, 1000), OURS, {}, settings)

    network, keys = tp.functional(_network), tp.random.split(tp.random.key(0), 1000)
    programs = {
        OURS: _repeat(lambda: tp.vmap(network.init)(keys)),
        "a loop of constructors": _repeat(lambda: stack_module_state([_network() for _ in range(1000)])),
    }
    settings = {
        OURS: "vmap(net.init)(keys); at most 100 ms",
        "a loop of constructors": "1,000 modules from the global generator, stack_module_state",
    }
    report("init: 1,000 members of the article's network", times(programs, 5), OURS, {}, settings)

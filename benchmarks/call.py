"""The cost of calling a module as a function of its parameters: 8 × (Linear + Tanh), width 5, on 40 rows."""

import torch
from torch import nn
from torch.func import functional_call

import torchpure as tp

from ._harness import Run, report, times

PLAIN = "plain module"
OURS = "torchpure"
SETTINGS = {
    OURS: "net(params, x)",
    "torchpure, watched": "the same, of a module that cannot be proven never to draw",
    PLAIN: "module(x)",
    "functional_call": "torch.func.functional_call(module, params, (x,))",
}


class Watched(nn.Sequential):
    """The same layers, with a forward that calls a helper, so that every call must check for random draws."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layers one after another."""
        return helper(super().forward, x)


def helper(fn, x):
    """Call a function."""
    return fn(x)


def main() -> None:
    """Compare calls with parameters that require grad, so that all programs record a graph."""
    layers = [layer for _ in range(8) for layer in (nn.Linear(5, 5), nn.Tanh())]
    module, x = nn.Sequential(*layers), torch.linspace(-1, 1, 200).reshape(40, 5)
    net, watched = tp.functional(module), tp.functional(Watched(*layers))
    params = dict(module.named_parameters())

    def repeat(call) -> Run:
        def run(count: int) -> None:
            for _ in range(count):
                call()

        return run

    programs = {
        OURS: repeat(lambda: net(params, x)),
        "torchpure, watched": repeat(lambda: watched(params, x)),
        PLAIN: repeat(lambda: module(x)),
        "functional_call": repeat(lambda: functional_call(module, params, (x,))),
    }
    report("call: 8 × (Linear + Tanh)", times(programs, 2000), OURS, {PLAIN: 1.3}, SETTINGS)
    _with_draws(repeat)


def _with_draws(repeat) -> None:
    """Compare calls of a module with dropout and batch norm: it needs a key, and takes and returns buffers."""
    layers = [layer for _ in range(4) for layer in (nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.1))]
    module, x = nn.Sequential(*layers), torch.linspace(-1, 1, 200).reshape(40, 5)
    net, key = tp.functional(module), tp.random.key(0)
    params, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    programs = {
        OURS: repeat(lambda: net.apply(params, net.state, x, key=key)),
        PLAIN: repeat(lambda: module(x)),
        "functional_call": repeat(lambda: functional_call(module, {**params, **buffers}, (x,))),
    }
    settings = {
        OURS: "net.apply(params, state, x, key=key): pure",
        PLAIN: "module(x): draws from the global generator, changes its buffers",
        "functional_call": "the same, of given parameters: changes the given buffers",
    }
    report("call: 4 × (Linear + BatchNorm1d + Dropout)", times(programs, 500), OURS, {}, settings)

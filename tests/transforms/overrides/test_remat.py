"""Every override inside of `remat` and `torch.utils.checkpoint`: the second run replaces the same operations."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import torchpure as tp

from .test_registry import CALLS, pytestmark, plain

__all__ = ["pytestmark"]
LAWS = {
    "grad": lambda f: tp.grad(f),
    "vmap of grad": lambda f: lambda x: tp.vmap(tp.grad(f))(torch.stack([x, 1.1 * x])),
    "graph of grad": lambda f: lambda x: tp.make_graph(tp.grad(f))(x)(x),
}


class Checkpointed(nn.Module):
    """A module that checkpoints a module, which calls an operation."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


class Inner(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call, self.scale = call, nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        return self.call(x * self.scale)


@pytest.mark.parametrize("name", CALLS)
def test_an_override_in_remat(name):
    row, _ = CALLS[name]
    squares = lambda run: lambda x: (run(x) ** 2).sum()  # noqa: E731
    f = squares(plain(name))
    net = tp.functional(Checkpointed(Inner(plain(name))))
    wrapped = {"remat": tp.remat(f), "checkpoint": squares(lambda x: net(net.params, x))}
    for law, transform in LAWS.items():
        if law.removeprefix("graph of ") in row.refuses or "grad" in row.refuses:
            continue
        wanted = transform(f)(row.at)
        for how, g in wrapped.items():
            assert_close(transform(g)(row.at), wanted, msg=lambda text, law=law, how=how: f"{law}, {how}: {text}")

"""Every override inside of `remat` and `torch.utils.checkpoint`: each run of the body replaces the same operations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import torchpure as tp

from .test_registry import CALLS, ROWS, D, name_of, plain
from .test_registry import pytestmark as warnings

pytestmark = [*warnings, pytest.mark.filterwarnings("ignore:The .grad attribute")]  # torch makes views fake so
LAWS = {
    "grad": lambda f: tp.grad(f),
    "vmap of grad": lambda f: lambda x: tp.vmap(tp.grad(f))(torch.stack([x, 1.1 * x])),
    "program of grad": lambda f: lambda x: tp.make_graph(tp.grad(f))(x)(x),
}


def squares(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: (run(x) ** 2).sum()


DIFFERENTIABLE = [name_of(row.operations[0]) for row in ROWS if "grad" not in row.refuses]


@pytest.mark.parametrize("name", [name for name in DIFFERENTIABLE if name in CALLS])
def test_the_gradient_of_an_override_in_remat(name):
    f, x = squares(plain(name)), CALLS[name][0].at
    assert_close(tp.grad(tp.remat(f))(x), tp.grad(f)(x))


class Scaled(nn.Module):
    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call, self.scale = call, nn.Parameter(torch.ones((), dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x * self.scale)


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


@pytest.mark.proof
@pytest.mark.parametrize("name", CALLS)
def test_each_transform_of_an_override_in_remat(name):
    row, _ = CALLS[name]
    net = tp.functional(Checkpointed(Scaled(plain(name))))
    f = squares(plain(name))
    wrapped = {"remat": tp.remat(f), "checkpoint": squares(lambda x: net(net.params, x))}
    for law in (law for law in LAWS if law.removeprefix("program of ") not in row.refuses):
        wanted = LAWS["grad" if law == "program of grad" else law](f)(row.at)
        for how, g in wrapped.items():
            assert_close(LAWS[law](g)(row.at), wanted, msg=lambda text, at=f"{law}, {how}": f"{at}: {text}")

"""Where torch.func is silently wrong, and this library is not (docs/from-torch-func.md)."""

import math

import pytest
import torch

import torchpure.compat.func as ours
from torchpure.errors import TransformError

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
ZERO, ONE = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
BELOW = -torch.ones(2, dtype=torch.float64)
CASES = {
    "linearize": (lambda F: F.grad(lambda x: F.linearize(torch.sin, x)[1](x).sum())(X), X.cos() - X * X.sin()),
    "sinc": (lambda F: F.grad(F.grad(torch.sinc))(ZERO), torch.tensor(-(math.pi**2) / 3, dtype=torch.float64)),
    "slope": (lambda F: F.jvp(lambda s: torch.nn.functional.leaky_relu(BELOW, s), (ONE / 10,), (ONE,))[1], BELOW),
    "tensor of": (lambda F: F.grad(lambda x: torch.tensor([x[0], x[1]]).sum())(X), torch.tensor([1.0, 1, 0]).double()),
    "bessel": (lambda F: F.grad(lambda x: torch.special.bessel_j0(x).sum())(X), -torch.special.bessel_j1(X)),
    "dtype": (lambda F: F.jvp(lambda x: x.mean() * 0.5, (torch.ones(2),), (torch.ones(2),))[1], torch.tensor(0.5)),
}


def _same(found, wanted):
    return found.dtype == wanted.dtype and torch.allclose(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_the_result_is_right(name):
    program, wanted = CASES[name]
    assert _same(program(ours), wanted)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_torch_2_13_is_wrong(name):
    if not torch.__version__.startswith("2.13"):
        pytest.skip("the table is about torch 2.13")
    program, wanted = CASES[name]
    assert not _same(program(torch.func), wanted)


def test_a_number_taken_from_a_variable_is_refused():
    with pytest.raises(TransformError, match=r"\.item\(\), line \d+ of test_better.py"):
        ours.jvp(lambda x: x * x.sum().item(), (X,), (X,))

"""Under autocast, vmap gives the dtypes and the values that a loop gives."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp

W, B = torch.sin(torch.arange(36.0)).reshape(6, 6), torch.linspace(-1, 1, 6)
X = torch.cos(torch.arange(24.0)).reshape(4, 6)
NET = tp.functional(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)))
IMAGE = torch.cos(torch.arange(36.0)).reshape(1, 1, 6, 6)
FUNCTIONS = {
    "linear": lambda x: F.linear(x, W, B),
    "linear without bias": lambda x: F.linear(x, W),
    "product": lambda x: W @ x,
    "einsum": lambda x: torch.einsum("ij,j->i", W, x),
    "addmv": lambda x: torch.addmv(B, W, x),
    "mv": lambda x: W.mv(x),
    "dot": lambda x: torch.dot(x, B),
    "addmm": lambda x: torch.addmm(B, x[None], W),
    "baddbmm": lambda x: torch.baddbmm(W[None], W[None], x.expand(1, 6, 6)),
    "addbmm": lambda x: torch.addbmm(W, W[None], x.expand(1, 6, 6)),
    "method": lambda x: W.addmm(W, x.expand(6, 6)),
    "prelu": lambda x: F.prelu(x, B[:1]),
    "convolution": lambda x: F.conv1d(x.reshape(1, 1, 6), B[:3].reshape(1, 1, 3), B[:1]),
    "transposed convolution": lambda x: F.conv_transpose1d(x.reshape(1, 1, 6), B[:3].reshape(1, 1, 3), B[:1]),
    "attention": lambda x: F.scaled_dot_product_attention(x.reshape(1, 3, 2), x.reshape(1, 3, 2), x.reshape(1, 3, 2)),
    "norm": lambda x: F.layer_norm(F.linear(x, W, B), (6,), B, B),
    "softmax": lambda x: F.linear(x, W).softmax(-1),
    "module": lambda x: NET(NET.params, x),
}


def _inside(f, dtype=torch.bfloat16):
    def run(x):
        with torch.autocast("cpu", dtype):
            return f(x)

    return run


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_mapped_function_has_the_dtypes_of_a_loop(name):
    f = _inside(FUNCTIONS[name])
    want = torch.stack([f(row) for row in X])
    with torch.autocast("cpu", torch.bfloat16):
        around = tp.vmap(FUNCTIONS[name])(X)
    for got in (tp.vmap(f)(X), around, tp.vmap(tp.vmap(f))(X[None])[0]):
        assert got.dtype == want.dtype
        tolerance = 1e-5 if want.dtype == torch.float32 else 3e-2
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


GRADIENTS = {
    "vmap of grad": lambda f: tp.vmap(tp.grad(f))(X),
    "jacrev": lambda f: torch.stack([tp.jacrev(f)(row) for row in X]),
    "grad of vmap": lambda f: tp.grad(lambda x: tp.vmap(f)(x).sum())(X),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("function", ["linear", "norm", "module", "attention", "addmm"])
def test_a_mapped_gradient_equals_that_of_a_loop(function, name, dtype):
    def loss(x):
        return _inside(FUNCTIONS[function], dtype)(x).float().square().sum()

    want = torch.stack([tp.grad(loss)(row) for row in X])
    got = GRADIENTS[name](loss)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=5e-2, atol=5e-2 * float(want.abs().max()))


def test_remat_computes_again_under_the_autocast_of_the_call():
    def loss(x):
        with torch.autocast("cpu", torch.bfloat16):
            return tp.remat(lambda x: F.linear(x, W).float().square().sum())(x)

    want = tp.grad(lambda x: _inside(lambda x: F.linear(x, W).float().square().sum())(x))(X[0])
    assert torch.equal(tp.grad(loss)(X[0]), want) and torch.allclose(tp.vmap(tp.grad(loss))(X[:1])[0], want, rtol=2e-2)

"""Activations under maps and forward derivatives: torch's own rules resize buffers, or run one member at a time."""

import warnings

import pytest
import torch
from torch.nn import functional as F

import torchpure as tp

X = torch.linspace(-2.05, 2.0, 12, dtype=torch.float64).reshape(3, 4)
ACTIVATIONS = {
    "celu": F.celu, "elu": F.elu, "gelu": F.gelu, "glu": F.glu, "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish, "hardtanh": F.hardtanh, "leaky_relu": F.leaky_relu,
    "log_softmax": lambda x: F.log_softmax(x, -1), "logsigmoid": F.logsigmoid, "mish": F.mish,
    "prelu": lambda x: F.prelu(x, X[0, :1]), "relu": F.relu, "relu6": F.relu6, "rrelu": F.rrelu, "selu": F.selu,
    "sigmoid": F.sigmoid, "silu": F.silu, "softmax": lambda x: F.softmax(x, -1), "softmin": lambda x: F.softmin(x, -1),
    "softplus": F.softplus, "softshrink": F.softshrink, "softsign": F.softsign, "tanh": F.tanh,
    "tanhshrink": F.tanhshrink, "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "a loss of them": lambda x: F.multilabel_soft_margin_loss(x[None], (X[:1] > 0).double()),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:second derivatives are zero everywhere")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivatives_under_vmap_are_right_and_warn_of_nothing(name):
    f = lambda x: (ACTIVATIONS[name](x) ** 2).sum()  # noqa: E731
    reference = (lambda x: ((F.relu6(x + 3) / 6) ** 2).sum()) if name == "hardsigmoid" else f  # torch has no second one
    wanted = torch.stack([torch.autograd.functional.hessian(reference, x) for x in X])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "An output with one or more elements was resized|There is a performance drop")
        for second in (tp.hessian, lambda f: tp.jacrev(tp.grad(f)), lambda f: tp.jit(tp.hessian(f))):
            torch.testing.assert_close(tp.vmap(second(f))(X), wanted)
        trace = wanted.diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(tp.vmap(tp.laplacian(f))(X), trace.sum(1))
        torch.testing.assert_close(tp.vmap(tp.hessian_diagonal(f))(X), trace)
        torch.testing.assert_close(tp.jit(tp.vmap(tp.laplacian(f)))(X), trace.sum(1))


def test_forward_derivatives_of_logsigmoid_far_out():
    x = torch.tensor([-60.0, -1.0, 0.0, 1.0, 30.0, 60.0], dtype=torch.float64)
    s, t = torch.sigmoid(x), torch.sigmoid(-x)
    second, third = -s * t, -s * t * (t - s)
    f = F.logsigmoid
    for wanted, got in (
        (t, tp.jacfwd(f)),
        (second, tp.jacfwd(tp.jacfwd(f))),
        (third, tp.jacfwd(tp.jacfwd(tp.jacfwd(f)))),
    ):
        torch.testing.assert_close(tp.vmap(got)(x), wanted, rtol=1e-12, atol=0.0)

"""Operators of functions that capture tensors of outer transforms, such as the weights of one member."""

import pytest
import torch
from architectures import close, trace
from torch.nn import functional as F

import torchpure as tp

D = torch.float64
WS = torch.linspace(-2, 3, 48, dtype=D).sin().reshape(3, 4, 4)
XS = torch.linspace(-1, 1, 12, dtype=D).cos().reshape(3, 4)
V = torch.tensor([0.5, -1.0, 0.3, 0.2], dtype=D)


def _attention(w, x):
    query, key = (x[:, None] * w[:, :2])[None, None], w[None, None, :, :2]
    return F.scaled_dot_product_attention(query, key, 2 * key).sin().sum()


def _batch_norm(w, x):
    return F.batch_norm(x[:, None] * w, None, None, w[0], w[1], training=True).tanh().pow(3).sum()


LAYERS = {
    "linear": lambda w, x: torch.tanh(F.linear(torch.tanh(F.linear(x, w, w[0])), w)).sum(),
    "matmul": lambda w, x: torch.sin(w @ x).prod(),
    "einsum": lambda w, x: torch.einsum("i,ij,j->", x.sin(), w, x),
    "conv1d": lambda w, x: torch.tanh(F.conv1d(x[None, None], w[:, None, :3], w[0])).sum(),
    "batch_norm": _batch_norm,
    "layer_norm": lambda w, x: torch.tanh(F.layer_norm(x, (4,), w[0], w[1])).pow(2).sum(),
    "attention": _attention,
    "where": lambda w, x: torch.where(w[0] > 0, x * w[1], x.sin() * w[2]).prod(),
    "cat": lambda w, x: torch.cat([x * w[0], w[1]]).exp().prod(),
    "addmm": lambda w, x: torch.addmm(w, x[:, None] * w, w.mT).sin().sum(),
    "solve": lambda w, x: torch.linalg.solve(w @ w.mT + x.exp().diag(), x).sin().sum(),
    "scan": lambda w, x: tp.scan(lambda c, row: (torch.tanh(w @ c) + row, None), x, w)[0].prod(),
    "vmap": lambda w, x: tp.vmap(lambda row: torch.sin(row @ x))(w).prod(),
    "grad": lambda w, x: tp.grad(lambda y: F.linear(y, w).sin().sum())(x).prod(),
}


def _hessian(f):
    return tp.jacfwd(tp.jacrev(f))


def _field(f):
    return lambda x: torch.stack([f(x), f(x.flip(0)) * x[0], f(2 * x), f(x.roll(1))])


OPERATORS = {  # an operator that gives a number, and the same by nested derivatives
    "laplacian": (tp.laplacian, trace),
    "bilaplacian": (tp.bilaplacian, lambda f: trace(trace(f))),
    "hessian_diagonal": (lambda f: lambda x: tp.hessian_diagonal(f)(x).prod(), lambda f: lambda x: _hessian(f)(x).diagonal().prod()),
    "jacobian_diagonal": (lambda f: lambda x: tp.jacobian_diagonal(_field(f))(x).prod(), lambda f: lambda x: tp.jacfwd(_field(f))(x).diagonal().prod()),
    "divergence": (lambda f: tp.divergence(_field(f)), lambda f: lambda x: tp.jacfwd(_field(f))(x).trace()),
    "advection": (lambda f: tp.advection(f, V), lambda f: lambda x: tp.jacfwd(f)(x) @ V),
    "partials": (lambda f: lambda x: sum(tp.partials(f, ("x", "xy"), coordinates="xyzw")(x)), lambda f: lambda x: tp.jacfwd(f)(x)[0] + _hessian(f)(x)[0, 1]),
    "directional": (lambda f: tp.directional(f, V, order=2), lambda f: lambda x: V @ _hessian(f)(x) @ V),
    "jet": (lambda f: lambda x: tp.jet(f, (x,), ([V, V],))[1][1], lambda f: lambda x: V @ _hessian(f)(x) @ V + tp.jacfwd(f)(x) @ V),
}  # fmt: skip
TRANSFORMS = {  # of a function g(w, x)
    "vmap": lambda g: tp.vmap(g)(WS, XS),
    "vmap of weights": lambda g: tp.vmap(g, in_dims=(0, None))(WS, XS[0]),
    "vmap vmap": lambda g: tp.vmap(tp.vmap(g, in_dims=(None, 0)), in_dims=(0, None))(WS, XS),
    "vmap vmap of weights": lambda g: tp.vmap(tp.vmap(g, in_dims=(0, None)), in_dims=(None, 0))(WS, XS),
    "other dimensions": lambda g: tp.vmap(g, in_dims=(2, 1))(WS.movedim(0, 2), XS.mT),
    "vmap grad": lambda g: tp.vmap(tp.grad(g))(WS, XS),
    "grad vmap": lambda g: tp.grad(lambda ws: tp.vmap(g)(ws, XS).sum())(WS),
    "vmap jvp": lambda g: tp.vmap(lambda w, x, d: tp.jvp(lambda at: g(at, x), (w,), (d,))[1])(WS, XS, WS.cos()),
    "jvp vmap": lambda g: tp.jvp(lambda ws: tp.vmap(g)(ws, XS), (WS,), (WS.cos(),))[1],
    "grad grad": lambda g: tp.grad(lambda w: tp.grad(g)(w, XS[0]).sin().sum())(WS[0]),
}


def _check(operator, layer, transform):
    def run(one):
        return TRANSFORMS[transform](lambda w, x: one(lambda at: LAYERS[layer](w, at))(x))

    close(*map(run, OPERATORS[operator]), 1e-8)


@pytest.mark.parametrize("layer", ["matmul", "einsum", "conv1d", "batch_norm", "attention", "vmap"])
def test_layers_with_mapped_weights(layer):
    _check("laplacian", layer, "vmap")


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_weights_of_every_transform(transform):
    _check("laplacian", "linear", transform)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_with_mapped_weights(operator):
    _check(operator, "linear", "vmap")


@pytest.mark.proof
@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "bilaplacian"])
def test_every_operator_layer_and_transform(operator):
    for layer in LAYERS:
        for transform in TRANSFORMS:
            _check(operator, layer, transform)

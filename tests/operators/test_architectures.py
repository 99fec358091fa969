"""The Laplacian of many architectures, against the trace of the Hessian, and third derivatives of them."""

import pytest
import torch
import torch.nn.functional as F
from architectures import FOLLOWED, NESTED, X, close, tokens, trace
from torch import nn

import torchpure as tp
from torchpure.operators import _second_order


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_laplacian_is_the_trace_of_the_hessian_in_one_pass(name, monkeypatch):
    params, net = FOLLOWED[name]

    def u(x):
        return net(params, x)

    wanted = (u(X), tp.jacfwd(u)(X), trace(u)(X))
    monkeypatch.setattr(_second_order, "_nested", None)
    found = tp.laplacian(u, with_value=True)(X)
    close(found, wanted)


@pytest.mark.parametrize("name", NESTED)
def test_a_function_that_cannot_be_followed_is_differentiated_by_nesting(name, monkeypatch):
    params, net = NESTED[name]

    def u(x):
        return net(params, x)

    calls, nested = [], _second_order._nested
    monkeypatch.setattr(_second_order, "_nested", lambda *args: calls.append(1) or nested(*args))
    close(tp.laplacian(u)(X), trace(u)(X))
    assert calls


DEEP = ["tanh", "gelu", "silu", "layer norm", "softmax", "attention", "determinant", "remat", "phase", "convolution"]


@pytest.mark.parametrize("name", DEEP)
def test_gradients_of_a_laplacian_in_the_parameters(name):
    params, net = FOLLOWED[name]

    def loss(operator):
        def run(params):
            u = lambda x: net(params, x).sum()  # noqa: E731
            return (tp.vmap(operator(u))(torch.stack([X, X.flip(0)])) ** 2).mean()

        return run

    close(tp.grad(loss(tp.laplacian))(params), tp.grad(loss(trace))(params))


@pytest.mark.parametrize("name", ["tanh", "silu", "logsumexp"])
def test_gradients_of_a_bilaplacian_in_the_parameters(name):
    params, net = FOLLOWED[name]

    def loss(operator):
        return lambda params: operator(lambda x: net(params, x).sum())(X).square()

    close(tp.grad(loss(tp.bilaplacian))(params), tp.grad(loss(lambda u: trace(trace(u))))(params), 1e-9)


def test_custom_rules_are_kept():
    @tp.custom_jvp
    def half(x):
        return x.sin()

    half.defjvp(lambda primals, tangents: (half(primals[0]), tangents[0] * primals[0] ** 2))
    u = lambda x: (half(x) * x).sum()  # noqa: E731
    close(tp.laplacian(u)(X), trace(u)(X))
    assert not torch.allclose(tp.laplacian(u)(X), trace(lambda x: (x.sin() * x).sum())(X))


def test_a_module_in_training_draws_once_from_its_key():
    net = tp.functional(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)).double())
    key = tp.random.key(0)

    def u(x):
        return net.apply(net.params, net.state, x, key=key, train=True)[0].sum()

    close(tp.laplacian(u)(X), trace(u)(X))
    assert float(tp.laplacian(u)(X)) != 0


def test_a_drawn_mask_is_drawn_once(monkeypatch):
    """A rule that ran the operation again would multiply the derivatives by another mask."""
    calls = []
    monkeypatch.setattr(_second_order, "_nested", lambda *args: calls.append(1) or _second_order.Pass(*[X] * 4))
    tp.laplacian(lambda x: F.dropout(x * 2, 0.5))(X)
    tp.laplacian(lambda x: F.scaled_dot_product_attention(*(tokens(x),) * 3, dropout_p=0.5))(X)
    assert calls == [1, 1]

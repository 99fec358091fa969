"""Results of transforms have the structure of their arguments; transformed functions keep their names."""

import functools
from typing import NamedTuple

import pytest
import torch
from torch import nn

import torchpure as tp

X = torch.tensor([1.0, 2.0], dtype=torch.float64)


class Pair(NamedTuple):
    one: torch.Tensor
    two: torch.Tensor


FORMS = [(X, X * 2), [X, X * 2], {"b": X, "a": X * 2}, Pair(X, X * 2), {"n": {"m": (X,)}, "o": [X * 2]}]


@pytest.mark.parametrize("params", FORMS, ids=lambda form: type(form).__name__)
def test_gradients_have_the_structure_of_the_parameters(params):
    def total(p):
        return sum((leaf**2).sum() for leaf in tp.tree.leaves(p))

    gradient = tp.grad(total)(params)
    assert type(gradient) is type(params)
    tp.tree.check_same(params, gradient)
    for leaf, derivative in zip(tp.tree.leaves(params), tp.tree.leaves(gradient), strict=True):
        assert torch.equal(derivative, 2 * leaf)


def test_argnums_kwargs_and_names():
    def area(width, height, *, scale=1.0):
        return (width * height).sum() * scale

    by_both = tp.grad(area, argnums=(1, -2))(X, X * 3, scale=2.0)
    assert torch.equal(by_both[0], 2 * X) and torch.equal(by_both[1], 6 * X)
    assert tp.grad(area).__name__ == "area"
    assert torch.equal(tp.grad(functools.partial(area, X))(X), X)
    linear = nn.Linear(2, 1).double()
    weight = linear.weight.detach()
    assert torch.equal(tp.grad(lambda x: linear(x).sum())(X).detach(), weight[0])
    net = tp.functional(linear)
    assert torch.equal(tp.jacrev(net)(net.params, X)["weight"][0, 0], X)


def test_jvp_none_is_zero_and_vjp_pulls_twice():
    out, tangent = tp.jvp(lambda a, b: (a * b, torch.tensor(3)), (X, X), (None, X))
    assert torch.equal(tangent[0], X * X) and tangent[1] is None and out[1] == 3
    value, pull, aux = tp.vjp(lambda x: ({"a": x**2, "b": x}, "aux"), X, has_aux=True)
    assert aux == "aux" and torch.equal(value["a"], X**2)
    for _ in range(2):
        assert torch.equal(pull({"a": X, "b": None})[0], 2 * X * X)


def test_vmap_out_dims_negative_and_nested_none():
    out = tp.vmap(lambda x: (x, x * 2), in_dims=-1, out_dims=(-1, 0))(torch.arange(6.0).reshape(2, 3))
    assert out[0].shape == (2, 3) and out[1].shape == (3, 2)
    nested = tp.vmap(lambda a: tp.vmap(lambda b: a * 2, out_dims=None)(X))(X)
    assert torch.equal(nested, X * 2)
    shared = tp.vmap(lambda a: X * 2, out_dims=None)(X)
    assert torch.equal(shared, X * 2)
    assert torch.equal(tp.vmap(lambda a, b: a * b, in_dims=(0, None))(X, torch.tensor(2.0)), X * 2)

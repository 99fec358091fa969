"""Misuse: who, where, what was wanted, what came."""

import functools
from typing import NamedTuple

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import StructureError, TransformError

X = torch.tensor([1.0, 2.0], dtype=torch.float64)


def loss(x):
    return x


def _put(memory, value, where=0):
    memory[where] = value
    return memory


ERRORS = {
    "a float": (lambda: tp.grad(torch.sin)(3.0), r"grad: `sin` has nothing to differentiate: argument 0 is float 3.0. Wanted .* torch.tensor\(3.0\)"),
    "an int leaf": (lambda: tp.grad(loss)({"a": {"n": 1}}), "argument 0 at `a.n` is int 1"),
    "no leaves": (lambda: tp.grad(loss)({"a": None}), "argument 0 has no leaves"),
    "not a scalar": (lambda: tp.grad(loss)(X), r"grad: `loss` \(test_errors.py:\d+\) must return a real tensor of shape \(\), got a float64 tensor of shape \(2,\). Reduce it"),
    "a tuple": (lambda: tp.value_and_grad(lambda x: (x.sum(), 1))(X), "value_and_grad: .* got tuple of 2. .*has_aux=True"),
    "complex": (lambda: tp.grad(lambda x: x.sum() * 1j)(X), "must return a real tensor"),
    "no aux": (lambda: tp.grad(lambda x: x.sum(), has_aux=True)(X), r"with has_aux, .* must return \(value, aux\)"),
    "no aux in jacrev": (lambda: tp.jacrev(loss, has_aux=True)(X), r"jacrev: with has_aux, .* must return \(value, aux\)"),
    "argnums too large": (lambda: tp.grad(loss, argnums=1)(X), "argnums=1 does not fit the 1 positional arguments"),
    "argnums twice": (lambda: tp.grad(loss, argnums=(0, -1))(X), "must name each argument once"),
    "argnums empty": (lambda: tp.grad(loss, argnums=())(X), "at least one"),
    "sizes": (lambda: tp.vmap(loss)({"a": X, "b": {"c": X[:1]}}), r"mapped dimensions differ in size: 2 in argument 0 at `a`, 1 in argument 0 at `b.c`"),
    "in_dims length": (lambda: tp.vmap(loss, in_dims=(0, 0))(X), r"in_dims=\(0, 0\) does not fit the 1 positional"),
    "in_dims shape": (lambda: tp.vmap(loss, in_dims=({"b": 0},))({"a": X}), r"vmap: in_dims\[0\] must be an int, None or shaped like"),
    "dimension": (lambda: tp.vmap(loss, in_dims=1)(X), "cannot be mapped over dimension 1: it is a float64 tensor of shape"),
    "a mapped number": (lambda: tp.vmap(loss)({"a": X, "n": 3}), "argument 0 at `n` cannot be mapped over dimension 0: it is int 3. Pass in_dims=None"),
    "nothing mapped": (lambda: tp.vmap(loss, in_dims=None)(X), "has no mapped argument"),
    "output": (lambda: tp.vmap(lambda x: 3)(X), "must return tensors, got int 3"),
    "out_dims": (lambda: tp.vmap(lambda x: {"y": x}, out_dims=None)(X), "the result of .* at `y` differs between members"),
    "out_dims shape": (lambda: tp.vmap(loss, out_dims=(0, 0))(X), "out_dims must be an int, None or shaped like"),
    "draws": (lambda: tp.vmap(lambda x: x + torch.rand(()))(X), "draws from the global generator. Give each member a key"),
    "sizes by value": (lambda: tp.vmap(lambda x: x[None][x[None] > 1])(X), r"vmap: `<lambda>` .*, line \d+ of test_errors.py, uses `indexing with a boolean mask`, whose result has another size for each member"),
    "nonzero": (lambda: tp.vmap(lambda x: x[None].nonzero())(X), "uses `aten::nonzero`, whose result has another size for each member: keep all"),
    "item": (lambda: tp.vmap(lambda x: x * x.item())(X), r"line \d+ of test_errors.py, makes a number of a mapped tensor"),
    "branch": (lambda: tp.vmap(lambda x: x if x > 0 else -x)(X), "branches on the value of a mapped tensor: choose with torch.where"),
    "written": (lambda: tp.vmap(lambda x: _put(torch.zeros(2), x))(X), r"line \d+ of test_errors.py, writes a mapped value into a tensor that all members share"),
    "written at a mask": (lambda: tp.vmap(lambda x: _put(torch.zeros(2), x, x[None] > 1))(X), "writes a mapped value into a tensor that all members share: make it of a mapped one"),
    "primals": (lambda: tp.jvp(loss, X, X), "jvp: primals must be a tuple"),
    "number of tangents": (lambda: tp.jvp(loss, (X,), ()), "wanted 1 tangents, one a primal, got 0"),
    "tangent": (lambda: tp.jvp(lambda p: p["w"], ({"w": X},), ({"w": X[:1]},)), r"jvp: tangent of argument 0 at `w`: wanted a float64 tensor of shape \(2,\), got .* \(1,\)"),
    "tangent dtype": (lambda: tp.jvp(loss, (X,), (X.float(),)), "got a float32 tensor"),
    "cotangent": (lambda: tp.vjp(lambda x: {"y": x}, X)[1]({"y": X[:1]}), r"vjp: cotangent at `y`: wanted"),
    "no output": (lambda: tp.jacrev(lambda x: "text")(X), "jacrev: .* must return floating point or complex tensors, got str 'text'"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(TransformError, match=message):
        call()


def test_wrong_structures_name_the_path():
    with pytest.raises(StructureError, match=r"jvp: tangents: trees differ at `0`: wanted keys 'w', got 'v'"):
        tp.jvp(lambda p: p["w"], ({"w": X},), ({"v": X},))
    _, pull = tp.vjp(lambda x: {"y": x}, X)
    with pytest.raises(StructureError, match=r"vjp: trees differ at `\.`: wanted keys 'y', got 'z'"):
        pull({"z": X})


class Pair(NamedTuple):
    one: torch.Tensor
    two: torch.Tensor


FORMS = [(X, X * 2), [X, X * 2], {"b": X, "a": X * 2}, Pair(X, X * 2), {"n": {"m": (X,)}, "o": [X * 2]}]


@pytest.mark.parametrize("params", FORMS, ids=lambda form: type(form).__name__)
def test_gradients_have_the_form_of_the_parameters(params):
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

"""jvp, vjp and Jacobians of trees: structure, integer outputs, aux, None, and misuse."""

import subprocess
import sys
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import StructureError, TransformError

D = torch.float64
X = torch.tensor([1.0, 2.0], dtype=D)
Y = torch.tensor([0.5, -1.5], dtype=D)
Z = torch.complex(X, Y)
EYE = torch.eye(2, dtype=D)
P = {"w": X, "b": (Y, 3), "name": "p", "none": None}


class Out(NamedTuple):
    y: Any
    rest: Any


def fn(p):
    """Return floats, an integer tensor, a number, text and None."""
    return Out(p["w"] * p["b"][0], {"sum": (p["w"] ** 2).sum(), "n": torch.tensor(7), "k": 3, "s": "t", "none": None})


def same(actual, expected):
    tp.tree.check_same(actual, expected)
    assert type(actual) is type(expected)
    for one, two in zip(tp.tree.leaves(actual), tp.tree.leaves(expected), strict=True):
        if isinstance(two, torch.Tensor):
            assert one.dtype == two.dtype
            assert_close(one, two, rtol=1e-14, atol=0)
        else:
            assert one == two


def like_p(w, b):
    return {"w": w, "b": (b, None), "name": None, "none": None}


def like_out(y, total):
    return Out(y, {"sum": total, "n": None, "k": None, "s": None, "none": None})


JACOBIAN = like_out(
    like_p(torch.diag(Y), torch.diag(X)), like_p(2 * X, torch.zeros(2, dtype=D))
)  # the value's form outside, the argument's inside


@pytest.mark.parametrize("transform", [tp.jacrev, tp.jacfwd])
def test_a_jacobian_has_the_value_outside_and_the_argument_inside(transform):
    same(transform(fn)(P), JACOBIAN)


def test_jvp_of_trees():
    value, tangent = tp.jvp(fn, (P,), (like_p(Y, X),))
    same(value, fn(P))
    same(tangent, like_out(Y * Y + X * X, (2 * X * Y).sum()))


@pytest.mark.parametrize("ignored", [None, 5, "text"])
def test_tangents_of_other_leaves_are_ignored(ignored):
    _, tangent = tp.jvp(fn, (P,), ({"w": None, "b": (X, ignored), "name": ignored, "none": None},))
    same(tangent, like_out(X * X, torch.zeros((), dtype=D)))


def test_vjp_of_trees():
    value, pull = tp.vjp(fn, P)
    same(value, fn(P))
    two = torch.tensor(2.0, dtype=D)
    for _ in range(2):
        same(pull(like_out(X, two)), (like_p(X * Y + 4 * X, X * X),))
        same(pull(like_out(X, None)), (like_p(X * Y, X * X),))
        same(pull(like_out(None, None)), (like_p(0 * X, 0 * X),))


def test_several_arguments_and_keywords():
    def product(a, b, *, scale=1.0):
        return a * b * scale

    for transform in (tp.jacrev, tp.jacfwd):
        same(transform(product, argnums=(0, 1))(X, Y, scale=2.0), (2 * torch.diag(Y), 2 * torch.diag(X)))
        same(transform(product, argnums=[1])(X, Y), (torch.diag(X),))
        same(transform(product, argnums=-2)(X, Y), torch.diag(Y))
    same(tp.hessian(lambda a, b: (a * b**2).sum(), argnums=(0, 1))(X, Y), ((0 * EYE, 2 * torch.diag(Y)), (2 * torch.diag(Y), 2 * torch.diag(X))))  # fmt: skip
    same(tp.vjp(product, X, Y)[1](X), (X * Y, X * X))
    same(tp.jvp(product, [X, Y], [Y, None])[1], Y * Y)


AUX = {"x": X, "n": 3, "s": "text", "i": torch.tensor(2), "none": None}


def test_aux():
    def with_aux(x):
        return (x**3).sum(), {**AUX, "x": x}

    same(tp.jacrev(with_aux, has_aux=True)(X), (3 * X**2, AUX))
    same(tp.jacfwd(with_aux, has_aux=True)(X), (3 * X**2, AUX))
    same(tp.hessian(with_aux, has_aux=True)(X), (torch.diag(6 * X), AUX))
    same(tp.jvp(with_aux, (X,), (Y,), has_aux=True), ((X**3).sum(), (3 * X**2 * Y).sum(), AUX))
    value, pull, aux = tp.vjp(with_aux, X, has_aux=True)
    same((value, pull(torch.ones((), dtype=D)), aux), ((X**3).sum(), (3 * X**2,), AUX))


def test_a_hessian_has_the_argument_twice():
    hessian = tp.hessian(lambda p: (p["w"] ** 2 * p["b"][0]).sum())(P)
    same(
        hessian,
        {
            "w": like_p(2 * torch.diag(Y), 2 * torch.diag(X)),
            "b": (like_p(2 * torch.diag(X), 0 * EYE), None),
            "name": None,
            "none": None,
        },
    )


def test_a_hessian_of_several_values():
    hessian = tp.hessian(lambda x: {"a": x**3, "b": x.prod()})(X)
    same(hessian, {"a": torch.einsum("i,ij,ik->ijk", 6 * X, EYE, EYE), "b": EYE.flip(0)})


EDGES = {
    "shape ()": (lambda t: t(torch.sin)(X[0]), lambda: torch.cos(X[0])),
    "empty input": (lambda t: t(lambda x: x**2)(X[:0]), lambda: torch.zeros(0, 0, dtype=D)),
    "empty output": (lambda t: t(lambda x: x[:0])(X), lambda: torch.zeros(0, 2, dtype=D)),
    "empty input, a number": (lambda t: t(lambda x: x.sum())(X[:0]), lambda: torch.zeros(0, dtype=D)),
    "empty matrix": (lambda t: t(lambda m: m**2)(EMPTY), lambda: torch.zeros(2, 0, 2, 0, dtype=D)),
    "empty, float32": (lambda t: t(lambda x: x**2)(torch.zeros(0)), lambda: torch.zeros(0, 0)),
    "empty beside others": (
        lambda t: t(lambda p: p["x"].sum() * p["y"])({"x": X[:0], "y": X}),
        lambda: {"x": torch.zeros(2, 0, dtype=D), "y": 0 * EYE},
    ),
    "all empty": (
        lambda t: t(lambda p: {"a": p["x"].sum() * p["y"], "b": p["x"].sum()})({"x": X[:0], "y": X[:0]}),
        lambda: {"a": dict.fromkeys("xy", torch.zeros(0, 0, dtype=D)), "b": dict.fromkeys("xy", X[:0])},
    ),
    "empty, with aux": (
        lambda t: t(lambda x: (x**2, {"x": x, "n": 3}), has_aux=True)(X[:0]),
        lambda: (torch.zeros(0, 0, dtype=D), {"x": X[:0], "n": 3}),
    ),
    "empty, of members": (lambda t: tp.vmap(t(lambda x: x**2))(EMPTY), lambda: torch.zeros(2, 0, 0, dtype=D)),
    "a constant": (lambda t: t(lambda x: torch.ones(3, dtype=D))(X), lambda: torch.zeros(3, 2, dtype=D)),
    "its own input": (lambda t: t(lambda x: x)(X), lambda: EYE),
    "its own input twice": (lambda t: t(lambda x: (x, [x]))(X), lambda: (EYE, [EYE])),
    "matrices": (
        lambda t: t(lambda m: m.T)(torch.outer(X, Y)),
        lambda: torch.einsum("il,jk->ijkl", EYE, EYE),
    ),
    "bfloat16": (lambda t: t(lambda x: x**2)(X.bfloat16()), lambda: torch.diag(2 * X).bfloat16()),
    "float32": (lambda t: t(lambda x: x**2)(X.float()), lambda: torch.diag(2 * X).float()),
    "an integer argument beside": (
        lambda t: t(lambda p: p["x"] * p["n"])({"x": X, "n": torch.tensor(3)}),
        lambda: {"x": 3 * EYE, "n": None},
    ),
}


def in_chunks(size):
    return [partial(transform, chunk_size=size) for transform in (tp.jacrev, tp.jacfwd)]


@pytest.mark.parametrize("transform", [tp.jacrev, tp.jacfwd, *in_chunks(1), *in_chunks(2), *in_chunks(9)])
@pytest.mark.parametrize("name", EDGES)
def test_edge(name, transform):
    actual, expected = EDGES[name]
    same(actual(transform), expected())


EMPTY = torch.zeros(2, 0, dtype=D)
EMPTY_INPUTS = {
    "vector": (lambda h: h(lambda x: (x**3).sum())(X[:0]), (0, 0)),
    "matrix": (lambda h: h(lambda x: (x**3).sum())(EMPTY), (2, 0, 2, 0)),
    "vector function": (lambda h: h(lambda x: x**3)(X[:0]), (0, 0, 0)),
    "a constant": (lambda h: h(lambda x: torch.ones(3, dtype=D))(X[:0]), (3, 0, 0)),
    "members": (lambda h: tp.vmap(h(lambda x: (x**3).sum()))(EMPTY), (2, 0, 0)),
    "program": (lambda h: tp.jit(h(lambda x: (x**3).sum()))(X[:0]), (0, 0)),
}


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
@pytest.mark.parametrize("name", EMPTY_INPUTS)
def test_a_hessian_of_empty_arguments_is_empty(name, chunk_size):
    call, shape = EMPTY_INPUTS[name]
    same(call(partial(tp.hessian, chunk_size=chunk_size)), torch.zeros(shape, dtype=D))


def test_a_constant_pushes_and_pulls_zeros():
    same(tp.jvp(lambda x: torch.ones(3, dtype=D), (X,), (X,)), (torch.ones(3, dtype=D), torch.zeros(3, dtype=D)))
    same(tp.vjp(lambda x: torch.ones(3, dtype=D), X)[1](torch.ones(3, dtype=D)), (0 * X,))


def test_complex_products_follow_autograd():
    leaf = Z.clone().requires_grad_()
    expected = torch.autograd.grad(leaf**2, leaf, Z)[0]
    assert_close(tp.vjp(lambda z: z**2, Z)[1](Z)[0], expected, rtol=1e-14, atol=0)
    assert_close(expected, 2 * Z.conj() * Z, rtol=1e-14, atol=0)
    assert_close(tp.jvp(lambda z: z**2, (Z,), (Z,))[1], 2 * Z * Z, rtol=1e-14, atol=0)


def test_results_stay_attached_to_captured_tensors():
    w = Y.clone().requires_grad_()
    results = {
        "jacrev": (tp.jacrev(lambda x: x * w**2)(X).sum(), 2 * Y),
        "jacfwd": (tp.jacfwd(lambda x: x * w**2)(X).sum(), 2 * Y),
        "jvp": (tp.jvp(lambda x: x * w**2, (X,), (X,))[1].sum(), 2 * Y * X),
        "vjp": (tp.vjp(lambda x: x * w**2, X)[1](X)[0].sum(), 2 * Y * X),
        "hessian": (tp.hessian(lambda x: (x**2 * w**2).sum())(X).sum(), 4 * Y),
    }
    for result, expected in results.values():
        assert_close(torch.autograd.grad(result, w)[0], expected, rtol=1e-14, atol=0)


def pull_of(cotangent):
    return lambda: tp.vjp(fn, P)[1](cotangent)


def push(tangent):
    return lambda: tp.jvp(fn, (P,), (tangent,))


ERRORS = {
    "primals": (lambda: tp.jvp(torch.sin, X, (X,)), "jvp: primals must be a tuple, one entry an argument, got a float64 tensor"),
    "tangents": (lambda: tp.jvp(torch.sin, (X,), X), "jvp: tangents must be a tuple"),
    "number of tangents": (lambda: tp.jvp(torch.sin, (X,), (X, X)), "wanted 1 tangents, one a primal, got 2"),
    "no primals": (lambda: tp.jvp(lambda: X, (), ()), "jvp: .* got no positional argument to differentiate"),
    "no primals to pull": (lambda: tp.vjp(lambda: X), "vjp: .* got no positional argument to differentiate"),
    "integers": (lambda: tp.jvp(torch.square, (torch.arange(3),), (None,)), "nothing to differentiate: argument 0 is an int64 tensor"),
    "tangent shape": (push(like_p(X, X[:1])), r"jvp: tangent of argument 0 at `b.0`: wanted a float64 tensor of shape \(2,\), got .* \(1,\)"),
    "tangent dtype": (push(like_p(X.float(), X)), "tangent of argument 0 at `w`: .* got a float32 tensor"),
    "tangent as a number": (push(like_p(1.0, X)), "tangent of argument 0 at `w`: .* got float 1.0"),
    "cotangent shape": (pull_of(like_out(X[:1], None)), r"vjp: cotangent at `y`: wanted a float64 tensor of shape \(2,\)"),
    "cotangent dtype": (pull_of(like_out(None, torch.tensor(1.0))), r"vjp: cotangent at `rest.sum`: .* got a float32 tensor"),
    "cotangent of a complex value": (lambda: tp.vjp(torch.square, Z)[1](X), r"vjp: cotangent at `\.`: wanted a complex128"),
    "integer output": (lambda: tp.jacfwd(lambda x: torch.tensor(3))(X), "jacfwd: .* must return floating point or complex tensors, got an int64"),
    "no output": (lambda: tp.vjp(lambda x: None, X), "vjp: .* got None"),
    "complex input": (lambda: tp.jacrev(lambda p: p["z"].abs())({"x": X, "z": Z}), "jacrev: .* argument 0 at `z` is complex, .* use jvp or vjp"),
    "complex output": (lambda: tp.jacfwd(lambda x: (x, x * 1j))(X), "jacfwd: .* the value at `1` is complex"),
    "complex Hessian": (lambda: tp.hessian(lambda z: z.abs().sum())(Z), "hessian: .* argument 0 is complex"),
    "tangent of a number": (lambda: tp.jvp(lambda p: p["w"] * p["lr"], ({"w": X, "lr": 0.1},), ({"w": X * 0, "lr": 1.0},)), "jvp: tangents: argument 0 at `lr` is float 0.1, which is no variable, and has float 1.0: make it a tensor, or pass None"),
    "tangent of an integer": (lambda: tp.linearize(lambda x, n: x * n, X, 2)[1](X, torch.ones(())), r"linearize: tangents: argument 1 is int 2, which is no variable, and has a float32 tensor of shape \(\)"),
    "aux": (lambda: tp.jvp(torch.sin, (X,), (X,), has_aux=True), r"jvp: with has_aux, `sin` must return \(value, aux\)"),
    "aux of vjp": (lambda: tp.vjp(lambda x: (x, x, x), X, has_aux=True), "vjp: with has_aux, .* got tuple of 3"),
    "hessian": (lambda: tp.hessian(torch.sin)(1.0), "hessian: `sin` has nothing to differentiate"),
    "hessian argnums": (lambda: tp.hessian(torch.sin, argnums=1)(X), "hessian: argnums=1 does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(TransformError, match=message):
        call()


STRUCTURES = {
    "None for a tree": (lambda: tp.jvp(fn, (P,), (None,)), "jvp: tangents: trees differ at `0`: wanted dict of 4, got None"),
    "another key": (
        lambda: tp.jvp(fn, (P,), ({"v": X, "b": (X, 0), "name": 0, "none": None},)),
        "jvp: tangents: trees differ at `0`: .*missing 'w'; unexpected 'v'",
    ),
    "another length": (push({**P, "b": (X,)}), "jvp: tangents: trees differ at `0.b`: wanted 2 items, got 1"),
    "another type": (push({**P, "b": [X, 3]}), "jvp: tangents: trees differ at `0.b`: wanted tuple of 2, got list of 2"),
    "cotangent as a dict": (pull_of({"y": X}), r"vjp: trees differ at `\.`"),
    "cotangent without a key": (pull_of(Out(X, {"sum": None})), "vjp: trees differ at `rest`: .*missing 'n'"),
    "None for a value": (pull_of(None), r"vjp: trees differ at `\.`: wanted Out of 2, got None"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_error(name):
    call, message = STRUCTURES[name]
    with pytest.raises(StructureError, match=message):
        call()


def test_primals_whose_elements_share_memory():
    x = torch.ones(1, dtype=torch.float64).expand(3)
    t = torch.arange(3, dtype=torch.float64)
    assert_close(tp.jvp(torch.sin, (x,), (t,))[1], torch.cos(x) * t)
    assert_close(tp.jacfwd(torch.sin)(x), torch.diag(torch.cos(x)))
    assert_close(tp.hessian(lambda x: (x**3).sum())(x), torch.diag(6 * x))
    many = t.expand(2, 3)
    assert_close(tp.vmap(lambda x: tp.jvp(torch.sin, (x,), (t,))[1])(many), (torch.cos(t) * t).expand(2, 3))


LABELS, TARGETS = torch.tensor([0, 2, 1, 1]), torch.linspace(0.1, 0.9, 12, dtype=D).reshape(4, 3)
BATCH, START = (
    torch.linspace(-1, 1, 8, dtype=D).reshape(4, 2).sin(),
    torch.tensor([[0.3, -0.5, 0.1], [0.2, 0.9, -0.4]], dtype=D),
)
HEADS = nn.MultiheadAttention(3, 1, batch_first=True, dtype=D).requires_grad_(False)
TRAINED = {  # losses of (4, 3) outputs, whose gradients have no forward derivative in torch, or one that fails
    "mse_loss": lambda z: F.mse_loss(z, TARGETS),
    "mse_loss, sum": lambda z: F.mse_loss(z, TARGETS, reduction="sum"),
    "mse_loss, none": lambda z: F.mse_loss(z, TARGETS, reduction="none").prod(),
    "huber_loss": lambda z: F.huber_loss(z, TARGETS, delta=0.4),
    "soft_margin_loss": lambda z: F.soft_margin_loss(z, TARGETS.sign()),
    "cross_entropy": lambda z: F.cross_entropy(z, LABELS),
    "log_softmax": lambda z: (z.log_softmax(0) ** 2).mean(),
    "softmax": lambda z: (z.softmax(1) ** 2).mean(),
    "nll_loss": lambda z: F.nll_loss(z.log_softmax(1), LABELS),
}
SECOND = {  # of which torch has no second derivative at all: against finite differences
    "hardsigmoid": lambda z: (F.hardsigmoid(z) ** 2).mean(),
    "attention": lambda z: (F.scaled_dot_product_attention(z[None], z[None], z[None]) ** 2).mean(),
    "causal attention": lambda z: (F.scaled_dot_product_attention(z[None], z[None], z[None], is_causal=True) ** 2).mean(),
    "masked attention": lambda z: (
        F.scaled_dot_product_attention(z[None], z[None], z[None], torch.tensor([[True, False, True, True]] * 4), scale=0.3)
        ** 2
    ).mean(),
    "attention that sees nothing": lambda z: (
        F.scaled_dot_product_attention(z[None], z[None], z[None], torch.ones(4, 4, dtype=torch.bool).tril(-1)) ** 2
    ).mean(),
    "a module with attention": lambda z: (HEADS(z[None], z[None], z[None], need_weights=False)[0] ** 2).mean(),
}  # fmt: skip


def trained(loss, steps=2):
    def train(lr):
        w = START
        for _ in range(steps):
            w = w - lr * tp.grad(lambda w: loss(torch.tanh(BATCH @ w) * 2))(w)
        return loss(torch.tanh(BATCH @ w) * 2)

    return train


@pytest.mark.parametrize("name", [*TRAINED, *SECOND])
def test_forward_derivatives_go_through_a_training(name):
    train, lr = trained({**TRAINED, **SECOND}[name]), torch.tensor(0.3, dtype=D)
    h = 1e-4
    slope = (8 * (train(lr + h) - train(lr - h)) - (train(lr + 2 * h) - train(lr - 2 * h))) / (12 * h)
    along = lambda r: tp.jvp(train, (r,), (torch.ones_like(r),))[1]  # noqa: E731
    assert_close(along(lr), slope, rtol=1e-7, atol=1e-9)
    assert_close(tp.vmap(along)(lr[None])[0], slope, rtol=1e-7, atol=1e-9)
    assert_close(tp.jacfwd(train)(lr), slope, rtol=1e-7, atol=1e-9)
    if name in TRAINED:
        assert_close(tp.grad(train)(lr), slope, rtol=1e-7, atol=1e-9)


def test_forward_rules_that_torch_has_in_python_are_loaded():
    """torch's `make_dual` loads them at its first call; this process has not called it."""
    code = (
        "import torch, torchpure as tp; x = torch.tensor([0.1, 0.2]);"
        "print(tp.jvp(tp.grad(lambda x: (x.log_softmax(0) ** 2).sum()), (x,), (x,))[1].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "torch.Size([2])\n", done.stderr

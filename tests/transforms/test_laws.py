"""Compositions of three transforms, laws of docstrings, and compiled transforms, against closed forms."""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp

D = torch.float64
A = torch.tensor([0.5, -1.5, 2.0], dtype=D)
X = torch.tensor([0.3, 0.7, -1.1], dtype=D)
XS = torch.stack([X, X + 0.4])
V = torch.tensor([1.0, -2.0, 0.5], dtype=D)
W = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]], dtype=D)
Q = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.5, 0.3], [0.7, -0.2, 1.0]], dtype=D)


def f(x):
    return torch.sin(A * x).sum()


def g(x):
    return torch.sin(A * x)


def d(x, order):
    """The order-th derivative of each summand of f."""
    return A**order * torch.sin(A * x + order * torch.pi / 2)


def cube(t):
    return t**3


def check(actual, expected):
    assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def quartic(x):
    return (x @ Q @ x) ** 2


def hessian_of_quartic(x):
    """2 s (Q + Qᵀ) + 2 v vᵀ with s = xᵀQx and v = (Q + Qᵀ) x."""
    v = (Q + Q.T) @ x
    return 2 * (x @ Q @ x) * (Q + Q.T) + 2 * torch.outer(v, v)


def network(p, x):
    return p["v"] @ torch.tanh(p["w"] @ x + p["b"])


P = {
    "w": W,
    "b": torch.tensor([0.1, -0.2], dtype=D),
    "v": torch.tensor([1.5, -0.7], dtype=D),
    "name": "net",
    "none": None,
}


def laplacian_of_network(p, x):
    """Σ_h v_h tanh″(z_h) |w_h|² with tanh″ = −2 tanh (1 − tanh²)."""
    h = torch.tanh(p["w"] @ x + p["b"])
    return (p["v"] * -2 * h * (1 - h**2) * (p["w"] ** 2).sum(1)).sum()


def gradient_of_laplacian_by_v(p, x):
    h = torch.tanh(p["w"] @ x + p["b"])
    return -2 * h * (1 - h**2) * (p["w"] ** 2).sum(1)


def laplacian(p, x):
    return tp.hessian(network, argnums=1)(p, x).trace()


TRIPLES = {
    "vmap grad grad": (lambda: tp.vmap(tp.grad(tp.grad(lambda t: torch.sin(2 * t))))(X), lambda: -4 * torch.sin(2 * X)),
    "grad vmap grad": (lambda: tp.grad(lambda x: tp.vmap(tp.grad(cube))(x).sum())(X), lambda: 6 * X),
    "vmap hessian": (lambda: tp.vmap(tp.hessian(f))(XS), lambda: torch.stack([torch.diag(d(x, 2)) for x in XS])),
    "vmap hessian, coupled": (
        lambda: tp.vmap(tp.hessian(quartic))(XS),
        lambda: torch.stack([hessian_of_quartic(x) for x in XS]),
    ),
    "hessian, coupled": (lambda: tp.hessian(quartic)(X), lambda: hessian_of_quartic(X)),
    "grad of the trace of a hessian": (lambda: tp.grad(lambda x: tp.hessian(f)(x).trace())(X), lambda: d(X, 3)),
    "jvp grad vmap": (
        lambda: tp.jvp(tp.grad(lambda x: tp.vmap(lambda t: t**4)(x).sum()), (X,), (V,))[1],
        lambda: 12 * X**2 * V,
    ),
    "grad grad grad": (
        lambda: tp.grad(tp.grad(tp.grad(lambda t: torch.exp(2 * t))))(X[0]),
        lambda: 8 * torch.exp(2 * X[0]),
    ),
    "vmap vmap grad": (lambda: tp.vmap(tp.vmap(tp.grad(cube)))(XS), lambda: 3 * XS**2),
    "vmap vmap vmap": (lambda: tp.vmap(tp.vmap(tp.vmap(cube)))(XS[None]), lambda: XS[None] ** 3),
    "jvp jvp jvp": (
        lambda: tp.jvp(lambda x: tp.jvp(lambda y: tp.jvp(g, (y,), (V,))[1], (x,), (V,))[1], (X,), (V,))[1],
        lambda: d(X, 3) * V**3,
    ),
    "jacfwd jacrev jacfwd": (
        lambda: tp.jacfwd(tp.jacrev(tp.jacfwd(f)))(X),
        lambda: torch.einsum("i,ij,ik->ijk", d(X, 3), torch.eye(3, dtype=D), torch.eye(3, dtype=D)),
    ),
    "laplacian of a network": (lambda: laplacian(P, X), lambda: laplacian_of_network(P, X)),
    "laplacians of a network": (
        lambda: tp.vmap(laplacian, in_dims=(None, 0))(P, XS),
        lambda: torch.stack([laplacian_of_network(P, x) for x in XS]),
    ),
    "grad of a laplacian": (
        lambda: tp.grad(lambda p: tp.vmap(laplacian, in_dims=(None, 0))(p, XS).sum())(P)["v"],
        lambda: sum(gradient_of_laplacian_by_v(P, x) for x in XS),
    ),
}


@pytest.mark.parametrize("name", TRIPLES)
def test_composition_of_three(name):
    actual, expected = TRIPLES[name]
    check(actual(), expected())


def test_law_jacrev_is_jacfwd():
    def fn(p):
        return {"a": torch.sin(p["w"] * p["b"]), "b": (p["w"].sum() * p["b"],)}

    p = {"w": X, "b": X[0], "name": "x", "count": 3}
    one, two = tp.jacrev(fn)(p), tp.jacfwd(fn)(p)
    tp.tree.check_same(one, two)
    for left, right in zip(tp.tree.leaves(one), tp.tree.leaves(two), strict=True):
        check(left, right)
    check(one["a"]["w"], torch.diag(X[0] * torch.cos(X * X[0])))
    check(one["b"][0]["b"], X.sum())
    assert one["a"]["name"] is None and one["a"]["count"] is None


def test_law_vmap_is_a_loop():
    mapped = tp.vmap(lambda p, x: {"y": p["w"] * x.sum(), "x": x}, in_dims=({"w": None}, 1))({"w": X}, XS)
    for i in range(3):
        check(mapped["y"][i], X * XS[:, i].sum())
        check(mapped["x"][i], XS[:, i])


@pytest.mark.compile
def test_compiled_derivatives_equal_eager():
    def everything(p, x):
        value, tangent = tp.jvp(g, (x,), (V,))
        loss = tp.value_and_grad(lambda q: (network(q, x) ** 2, q["v"] * 2), has_aux=True)(p)
        return loss, tp.jacrev(g)(x), value, tangent, tp.vjp(g, x)[1](V)[0], tp.grad(tp.grad(cube))(x[0])

    p = {name: leaf for name, leaf in P.items() if isinstance(leaf, torch.Tensor)}
    compiled = torch.compile(everything, fullgraph=True, backend="eager")
    for actual, expected in zip(tp.tree.leaves(compiled(p, X)), tp.tree.leaves(everything(p, X)), strict=True):
        check(actual, expected)


@pytest.mark.compile
def test_compiled_vmap_equals_eager():
    def everything(x, xs):
        shared = tp.vmap(lambda y: (y * 2, x * 3), out_dims=(1, None))(xs)
        return shared, tp.vmap(tp.grad(f))(xs), tp.vmap(lambda y, s: {"y": y * s}, in_dims=(1, None))(xs, x[0])

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(tp.tree.leaves(compiled(X, XS)), tp.tree.leaves(everything(X, XS)), strict=True):
        check(actual, expected)


@pytest.mark.compile
def test_compiled_hessian_equals_eager():
    compiled = torch.compile(tp.hessian(quartic), fullgraph=True, backend="eager")
    check(compiled(X), hessian_of_quartic(X))


@pytest.mark.parametrize(
    "fn", [lambda x: x.amax(), lambda x: torch.zeros(2, dtype=D), lambda x: x.sign(), lambda x: x * 2]
)
def test_results_belong_to_no_level(fn):
    calls = [
        lambda: tp.jvp(fn, (X,), (X,)),
        lambda: tp.vmap(fn)(XS),
        lambda: tp.jacfwd(fn)(X),
        lambda: tp.jacrev(fn)(X),
        lambda: tp.grad(lambda x: fn(x).sum())(X),
        lambda: tp.vmap(tp.grad(lambda x: fn(x).sum()))(XS),
        lambda: tp.linearize(fn, X)[1](X),
        lambda: tp.vmap(lambda x: tp.jvp(fn, (x,), (x,))[1])(XS),
    ]
    for call in calls:
        for leaf in tp.tree.leaves(call()):
            assert not torch._C._functorch.is_functorch_wrapped_tensor(leaf)

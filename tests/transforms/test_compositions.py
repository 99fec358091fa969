"""Every composition of two transforms against a closed form.

f(x) = Σ sin(aᵢ xᵢ) has gradient aᵢ cos(aᵢ xᵢ), Hessian diag(−aᵢ² sin(aᵢ xᵢ)) and third derivative −aᵢ³ cos(aᵢ xᵢ).
Each inner transform of f is written as a function of x with its closed-form value and Jacobian; each outer transform is
applied to it, and compared with what that Jacobian says.
"""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp

A = torch.tensor([0.5, -1.5, 2.0], dtype=torch.float64)
X = torch.tensor([0.3, 0.7, -1.1], dtype=torch.float64)
XS = torch.stack([X, X + 0.4])
V = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def f(x):
    return torch.sin(A * x).sum()


def g(x):
    """The summands alone, shape (3,)."""
    return torch.sin(A * x)


def d(x, order):
    """The order-th derivative of each summand."""
    return A**order * torch.sin(A * x + order * torch.pi / 2)


def diag3(v):
    return torch.einsum("i,ij,ik->ijk", v, torch.eye(3, dtype=v.dtype), torch.eye(3, dtype=v.dtype))


def batch(fn):
    """Apply a closed form to x and x + 0.4, which is what vmap inside a function of x does here."""
    return lambda x: torch.stack([fn(x), fn(x + 0.4)])


# name -> (function of x made with the transform, its closed form, the closed form of its Jacobian)
INNER = {
    "grad": (tp.grad(f), lambda x: d(x, 1), lambda x: torch.diag(d(x, 2))),
    "value_and_grad": (
        lambda x: torch.cat([part.reshape(-1) for part in tp.value_and_grad(f)(x)]),
        lambda x: torch.cat([d(x, 0).sum()[None], d(x, 1)]),
        lambda x: torch.cat([d(x, 1)[None], torch.diag(d(x, 2))]),
    ),
    "vmap": (
        lambda x: tp.vmap(g)(torch.stack([x, x + 0.4])),
        batch(lambda x: d(x, 0)),
        batch(lambda x: torch.diag(d(x, 1))),
    ),
    "jvp": (
        lambda x: tp.jvp(g, (x,), (V,))[1],
        lambda x: d(x, 1) * V,
        lambda x: torch.diag(d(x, 2) * V),
    ),
    "vjp": (
        lambda x: tp.vjp(g, x)[1](V)[0],
        lambda x: d(x, 1) * V,
        lambda x: torch.diag(d(x, 2) * V),
    ),
    "jacfwd": (tp.jacfwd(g), lambda x: torch.diag(d(x, 1)), lambda x: diag3(d(x, 2))),
    "jacrev": (tp.jacrev(g), lambda x: torch.diag(d(x, 1)), lambda x: diag3(d(x, 2))),
    "hessian": (tp.hessian(f), lambda x: torch.diag(d(x, 2)), lambda x: diag3(d(x, 3))),
}


def weights(like):
    return torch.arange(1.0, like.numel() + 1, dtype=torch.float64).reshape(like.shape)


def second(jacobian, fn, x):
    """The Hessian of the weighted sum of fn: by differences of its exact Jacobian, for the outer Hessian only."""
    eps = 1e-5
    rows = []
    for i in range(3):
        e = torch.zeros(3, dtype=torch.float64)
        e[i] = eps
        rows.append((pull(jacobian(x + e), fn(x)) - pull(jacobian(x - e), fn(x))) / (2 * eps))
    return torch.stack(rows)


def pull(jacobian, value):
    return torch.tensordot(weights(value), jacobian, dims=value.ndim)


def check(actual, expected, rtol=1e-12):
    assert_close(actual, expected, rtol=rtol, atol=1e-13 if rtol < 1e-10 else 1e-8)


def outer_grad(fn, value, jacobian):
    check(tp.grad(lambda x: (weights(value(X)) * fn(x)).sum())(X), pull(jacobian(X), value(X)))


def outer_value_and_grad(fn, value, jacobian):
    total, gradient = tp.value_and_grad(lambda x: (weights(value(X)) * fn(x)).sum())(X)
    check(total, (weights(value(X)) * value(X)).sum())
    check(gradient, pull(jacobian(X), value(X)))


def outer_vmap(fn, value, jacobian):
    check(tp.vmap(fn)(XS), torch.stack([value(x) for x in XS]))


def outer_jvp(fn, value, jacobian):
    out, tangent = tp.jvp(fn, (X,), (V,))
    check(out, value(X))
    check(tangent, jacobian(X) @ V)


def outer_vjp(fn, value, jacobian):
    out, back = tp.vjp(fn, X)
    check(out, value(X))
    check(back(weights(value(X)))[0], pull(jacobian(X), value(X)))


def outer_jacfwd(fn, value, jacobian):
    check(tp.jacfwd(fn)(X), jacobian(X))


def outer_jacrev(fn, value, jacobian):
    check(tp.jacrev(fn)(X), jacobian(X))


def outer_hessian(fn, value, jacobian):
    weighted = tp.hessian(lambda x: (weights(value(X)) * fn(x)).sum())(X)
    check(weighted, second(jacobian, value, X), rtol=1e-7)


OUTER = {fn.__name__.removeprefix("outer_"): fn for fn in (
    outer_grad, outer_value_and_grad, outer_vmap, outer_jvp, outer_vjp, outer_jacfwd, outer_jacrev, outer_hessian
)}  # fmt: skip


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", OUTER)
def test_composition_of_two(outer, inner):
    OUTER[outer](*INNER[inner])


TRIPLES = {
    "laplacian": (lambda: tp.vmap(tp.grad(tp.grad(lambda t: torch.sin(2 * t))))(X), lambda: -4 * torch.sin(2 * X)),
    "grad of vmap of grad": (
        lambda: tp.grad(lambda x: tp.vmap(tp.grad(lambda t: t**3))(x).sum())(X),
        lambda: 6 * X,
    ),
    "vmap of hessian": (lambda: tp.vmap(tp.hessian(f))(XS), lambda: torch.stack([torch.diag(d(x, 2)) for x in XS])),
    "grad of the trace of a hessian": (lambda: tp.grad(lambda x: tp.hessian(f)(x).trace())(X), lambda: d(X, 3)),
    "jvp of grad of vmap": (
        lambda: tp.jvp(tp.grad(lambda x: tp.vmap(lambda t: t**4)(x).sum()), (X,), (V,))[1],
        lambda: 12 * X**2 * V,
    ),
    "three gradients": (
        lambda: tp.grad(tp.grad(tp.grad(lambda t: torch.exp(2 * t))))(X[0]),
        lambda: 8 * torch.exp(2 * X[0]),
    ),
    "vmap of vmap of grad": (
        lambda: tp.vmap(tp.vmap(tp.grad(lambda t: t**3)))(XS),
        lambda: 3 * XS**2,
    ),
}  # fmt: skip


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


def test_hessian_of_a_tree():
    h = tp.hessian(lambda p: (p["w"] ** 2).sum() * p["b"])({"w": X, "b": X[0], "none": None})
    check(h["w"]["w"], 2 * X[0] * torch.eye(3, dtype=torch.float64))
    check(h["w"]["b"], 2 * X)
    check(h["b"]["w"], 2 * X)
    check(h["b"]["b"], torch.zeros((), dtype=torch.float64))


@pytest.mark.compile
def test_compiled_transforms_equal_eager():
    def everything(x):
        _, tangent = tp.jvp(g, (x,), (V,))
        return tp.value_and_grad(f)(x), tp.vmap(tp.grad(f))(XS), tp.jacrev(g)(x), tangent, tp.vjp(g, x)[1](V)[0]

    compiled = torch.compile(everything, fullgraph=True, backend="eager")
    for actual, expected in zip(tp.tree.leaves(compiled(X)), tp.tree.leaves(everything(X)), strict=True):
        check(actual, expected)

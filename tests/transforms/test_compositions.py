"""Every composition of two transforms against a closed form.

A problem is a function g of n numbers with m values whose derivatives of every order are written down; the numbers
stand in a tensor or in a tree. `closed(k)` is the k-th derivative of what the inner transform gives, so the value, the
gradient and the Hessian that the outer one should find are contractions of closed(0), closed(1) and closed(2).
"""

from collections.abc import Callable
from math import perm
from typing import Any, NamedTuple

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp

D = torch.float64
A = torch.tensor([0.5, -1.5, 2.0], dtype=D)
X = torch.tensor([0.3, 0.7, -1.1], dtype=D)
Q = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.5, 0.3], [0.7, -0.2, 1.0]], dtype=D)
V = torch.tensor([1.0, -2.0, 0.5, 0.8], dtype=D)  # directions in the space of variables, and of values
U = torch.tensor([0.6, -0.4, 1.2], dtype=D)
SHIFT = 0.4


class Problem(NamedTuple):
    fn: Callable[[Any], torch.Tensor]  # tree -> (m,)
    build: Callable[[torch.Tensor], Any]  # (n,) -> tree
    derivative: Callable[[torch.Tensor, int], torch.Tensor]  # (n,), k -> (m, n, n, ...)
    point: torch.Tensor
    dims: Any  # where a stack of such trees has its members


def diagonal(values, order):
    """Put v_i at [i, i, ..., i] of a tensor with 1 + order dimensions."""
    out = torch.zeros((len(values),) * (1 + order), dtype=D)
    index = torch.arange(len(values))
    out[(index,) * (1 + order)] = values
    return out


def waves(x, order):
    """exp(x) sin(a x) is Im exp((1 + ia) x): each derivative multiplies by 1 + ia."""
    rate = torch.complex(torch.ones_like(A), A)
    return diagonal((rate**order * torch.exp(rate * x)).imag, order)


def quadratic(x, order):
    return {0: (x @ Q @ x)[None], 1: ((Q + Q.T) @ x)[None], 2: (Q + Q.T)[None]}.get(
        order, torch.zeros((1, *[3] * order), dtype=D)
    )


def power(w, order):
    """The order-th derivative of w³."""
    return perm(3, order) * w ** max(3 - order, 0)


def cubes(x, order):
    """w_i³ b: differentiated by w_i any number of times, and at most once by b."""
    w, b = x[:3], x[3]
    out = torch.zeros((3, *[4] * order), dtype=D)
    for i in range(3):
        out[(i, *[i] * order)] = power(w[i], order) * b
        for place in range(order):
            out[(i, *[3 if here == place else i for here in range(order)])] = power(w[i], order - 1)
    return out


def build_tree(x):
    return {"w": x[:3], "none": None, "deep": (2, {"b": x[3]}), "name": "cubes"}


TREE_DIMS = {"w": 0, "none": None, "deep": (None, {"b": 0}), "name": None}
PROBLEMS = {
    "waves": Problem(lambda x: torch.exp(x) * torch.sin(A * x), lambda x: x, waves, X, 0),
    "quadratic": Problem(lambda x: (x @ Q @ x)[None], lambda x: x, quadratic, X, 0),
    "tree": Problem(
        lambda p: p["w"] ** (p["deep"][0] + 1) * p["deep"][1]["b"],
        build_tree,
        cubes,
        torch.tensor([0.3, 0.7, -1.1, 0.9], dtype=D),
        TREE_DIMS,
    ),
}


def tensors(tree):
    return [leaf for leaf in tp.tree.leaves(tree) if isinstance(leaf, torch.Tensor)]


def columns(tree, shape=()):
    """Write a derivative with leaves (*shape, *leaf) as one tensor (*shape, n)."""
    return torch.cat([leaf.reshape(*shape, -1) for leaf in tensors(tree)], -1)


def rows(hessian, point):
    """Write a Hessian, a tree of trees, as one tensor (n, n)."""
    parts = tp.tree.align(tp.tree.structure(point), point, hessian, "rows")
    variables = zip(tp.tree.leaves(point), parts, strict=True)
    return torch.cat([columns(part, leaf.shape).reshape(leaf.numel(), -1)
                      for leaf, part in variables if isinstance(leaf, torch.Tensor)])  # fmt: skip


def moved(tree, by):
    return tp.tree.map(lambda leaf: leaf + by if isinstance(leaf, torch.Tensor) else leaf, tree)


def stacked(tree):
    return tp.tree.map(
        lambda one, two: torch.stack([one, two]) if isinstance(one, torch.Tensor) else one, tree, moved(tree, SHIFT)
    )


def total(problem):
    return lambda p: problem.fn(p).sum()


def inner_grad(problem, d):
    return lambda p: columns(tp.grad(total(problem))(p)), lambda k: d(1 + k).sum(0)


def inner_value_and_grad(problem, d):
    def fn(p):
        value, gradient = tp.value_and_grad(total(problem))(p)
        return torch.cat([value[None], columns(gradient)])

    return fn, lambda k: torch.cat([d(k).sum(0)[None], d(1 + k).sum(0)])


def inner_vmap(problem, d):
    def closed(k):
        return torch.stack([d(k), d(k, SHIFT)])

    return lambda p: tp.vmap(problem.fn, in_dims=(problem.dims,))(stacked(p)), closed


def inner_jvp(problem, d):
    direction = V[: len(problem.point)]

    def fn(p):
        return tp.jvp(problem.fn, (p,), (problem.build(direction),))[1]

    return fn, lambda k: torch.tensordot(d(1 + k), direction, dims=([1], [0]))


def inner_vjp(problem, d):
    def fn(p):
        value, pull = tp.vjp(problem.fn, p)
        return columns(pull(U[: len(value)])[0])

    return fn, lambda k: torch.tensordot(U[: len(d(0))], d(1 + k), dims=1)


def inner_jacfwd(problem, d):
    return lambda p: columns(tp.jacfwd(problem.fn)(p), d(0).shape), lambda k: d(1 + k)


def inner_jacrev(problem, d):
    return lambda p: columns(tp.jacrev(problem.fn)(p), d(0).shape), lambda k: d(1 + k)


def inner_hessian(problem, d):
    return lambda p: rows(tp.hessian(total(problem))(p), p), lambda k: d(2 + k).sum(0)


def weights(like):
    return torch.arange(1.0, like.numel() + 1, dtype=D).reshape(like.shape)


def pulled(derivative, value):
    return torch.tensordot(weights(value), derivative, dims=value.ndim)


def check(actual, expected):
    assert_close(actual, expected, rtol=1e-12, atol=1e-13)


def outer_grad(fn, closed, beyond, problem, p):
    gradient = tp.grad(lambda p: (weights(closed(0)) * fn(p)).sum())(p)
    check(columns(gradient), pulled(closed(1), closed(0)))


def outer_value_and_grad(fn, closed, beyond, problem, p):
    value, gradient = tp.value_and_grad(lambda p: (weights(closed(0)) * fn(p)).sum())(p)
    check(value, (weights(closed(0)) * closed(0)).sum())
    check(columns(gradient), pulled(closed(1), closed(0)))


def outer_vmap(fn, closed, beyond, problem, p):
    mapped = tp.vmap(fn, in_dims=(problem.dims,))(stacked(p))
    check(mapped[0], closed(0))
    check(mapped[1], beyond(0))


def outer_jvp(fn, closed, beyond, problem, p):
    direction = V[: len(problem.point)]
    value, tangent = tp.jvp(fn, (p,), (problem.build(direction),))
    check(value, closed(0))
    check(tangent, closed(1) @ direction)


def outer_vjp(fn, closed, beyond, problem, p):
    value, pull = tp.vjp(fn, p)
    check(value, closed(0))
    check(columns(pull(weights(closed(0)))[0]), pulled(closed(1), closed(0)))


def outer_jacfwd(fn, closed, beyond, problem, p):
    check(columns(tp.jacfwd(fn)(p), closed(0).shape), closed(1))


def outer_jacrev(fn, closed, beyond, problem, p):
    check(columns(tp.jacrev(fn)(p), closed(0).shape), closed(1))


def outer_hessian(fn, closed, beyond, problem, p):
    check(rows(tp.hessian(lambda p: (weights(closed(0)) * fn(p)).sum())(p), p), pulled(closed(2), closed(0)))


NAMES = ["grad", "value_and_grad", "vmap", "jvp", "vjp", "jacfwd", "jacrev", "hessian"]


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("inner", NAMES)
@pytest.mark.parametrize("outer", NAMES)
def test_composition_of_two(outer, inner, kind):
    problem = PROBLEMS[kind]

    def derivatives_at(point):
        return lambda order, shift=0.0: problem.derivative(point + shift, order)

    make = globals()[f"inner_{inner}"]
    fn, closed = make(problem, derivatives_at(problem.point))
    _, beyond = make(problem, derivatives_at(problem.point + SHIFT))
    globals()[f"outer_{outer}"](fn, closed, beyond, problem, problem.build(problem.point))

"""Tracing loops inside of loops: the innermost body runs as often as a polynomial of the depth says, not 2^depth."""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp

D = torch.float64
X = torch.tensor([0.3, -0.7, 1.1], dtype=D)


def nested(depth, body, loop):
    """Return `depth` loops of two steps, one inside of the other."""
    if not depth:
        return body
    inner = nested(depth - 1, body, loop)
    return lambda x: loop(inner, x)


LOOPS = {
    "scan": lambda body, x: tp.scan(lambda c, _: (body(c), None), x, None, length=2)[0],
    "fori_loop": lambda body, x: tp.fori_loop(0, 2, lambda _, c: body(c), x),
    "cond": lambda body, x: tp.cond(x.sum() > -9, body, torch.cos, x),
}
TRANSFORMS = {  # name: (transform, the most runs of the innermost body of four scans)
    "value": (lambda f: f, 5),
    "vmap": (lambda f: lambda x: tp.vmap(f)(torch.stack([x, 2 * x])), 15),
    "vmap vmap": (lambda f: lambda x: tp.vmap(tp.vmap(f))(torch.stack([x, 2 * x])[None]), 35),
    "grad": (lambda f: tp.grad(lambda x: f(x).sum()), 15),
    "vmap grad": (lambda f: lambda x: tp.vmap(tp.grad(lambda x: f(x).sum()))(torch.stack([x, 2 * x])), 55),
    "hessian": (lambda f: tp.hessian(lambda x: f(x).sum()), 700),
}


def rows(body, x):
    """A scan that returns a row of each step too."""
    carry, ys = tp.scan(lambda c, _: (body(c), c), x, None, length=2)
    return carry + ys.sum(0)


@pytest.mark.parametrize("loop", [LOOPS["scan"], rows])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_innermost_body_runs_seldom(transform, loop):
    run, most = TRANSFORMS[transform]
    count = 0

    def body(x):
        nonlocal count
        count += 1
        return torch.sin(x) * 1.1

    tp.make_graph(run(nested(4, body, loop)))(X)
    assert count <= most


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_traced_nest_computes_what_its_loops_compute(loop, transform):
    run = TRANSFORMS[transform][0]
    # the second element of the carry gets a member in the second step only
    body = lambda x: torch.stack([x[1] * 1.1, x[0] * x[2], torch.sin(x[2])])  # noqa: E731
    f = run(nested(2, body, LOOPS[loop]))
    assert_close(tp.make_graph(f)(X)(X), f(X), rtol=1e-12, atol=1e-14)


def test_members_that_come_with_a_later_step_of_an_inner_loop():
    """The first part of the carry depends on the member after two steps only."""

    def inner(carry, w):
        step = lambda c, _: ((c[1], c[2], c[2] * w), None)  # noqa: E731
        return tp.scan(step, carry, None, length=3)[0]

    def f(w):
        zero = X * 0
        outer = lambda c, _: (inner(c, w), c[0])  # noqa: E731
        return tp.scan(outer, (X, X + zero, X - zero), None, length=2)

    members = torch.tensor([0.5, 2.0], dtype=D)
    wanted = tp.tree.map(lambda *leaves: torch.stack(leaves), *(f(w) for w in members))
    for mapped in (tp.vmap(f), lambda w: tp.vmap(tp.vmap(f))(w[None])):
        assert_close(tp.make_graph(mapped)(members)(members), mapped(members))
    assert_close(tp.make_graph(tp.vmap(f))(members)(members), wanted)


def test_a_body_that_writes_into_results_of_an_inner_loop():
    """While captures are looked for, these results lack members of later steps: a write into them is tried again."""

    def f(w):
        def outer(carry, _):
            a, b = tp.scan(lambda c, _: ((c[1], c[1] * w), None), carry, None, length=3)[0]
            a = a.clone()
            a += w
            return (a, b), a

        return tp.scan(outer, (X.clone(), X.clone()), None, length=2)

    members = torch.tensor([0.5, 2.0], dtype=D)
    wanted = tp.tree.map(lambda *leaves: torch.stack(leaves), *(f(w) for w in members))
    assert_close(tp.make_graph(tp.vmap(f))(members)(members), wanted)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_an_inner_loop_draws_with_a_key_that_the_outer_body_makes(transform):
    key = tp.random.key(1)

    def f(x):
        def outer(c, _):
            made = tp.random.fold_in(key, 5)
            inner = lambda c, _: (c.sin() * tp.random.uniform(tp.random.fold_in(made, 1), (3,)), None)  # noqa: E731
            return tp.scan(inner, c, None, length=2)[0], None

        return tp.scan(outer, x, None, length=2)[0]

    run = TRANSFORMS[transform][0]
    assert_close(tp.make_graph(run(f))(X)(X), run(f)(X), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_branch_draws_with_a_key_that_depends_on_the_step(transform):
    key = tp.random.key(1)

    def f(x):
        def outer(carry):
            number, c = carry
            made = tp.random.fold_in(key, number)
            drawn = lambda c: c * tp.random.uniform(made, (3,), dtype=D)  # noqa: E731
            return number + 1, tp.cond(c.sum() > 0, drawn, torch.sin, c)

        return tp.while_loop(lambda carry: carry[0] < 3, outer, (torch.tensor(0), x), max_steps=3)[1]

    run = TRANSFORMS[transform][0]
    assert_close(tp.make_graph(run(f))(X)(X), run(f)(X), rtol=1e-12, atol=1e-14)

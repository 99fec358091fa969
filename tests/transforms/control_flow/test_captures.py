"""Bodies of loops and branches pass captured tensors directly to a transform, or return them unchanged."""

from functools import cache, partial
from itertools import product

import pytest
import torch
from daily import daily, proof
from torch.testing import assert_close

import torchpure as tp

D = torch.float64
X, W = torch.linspace(0.2, 1, 4, dtype=D), torch.linspace(-1, 1, 4, dtype=D)
ONES = torch.ones(4, dtype=D)


def cube(x):
    return (x**3).sum()


INNER = {  # functions of a captured tensor
    "itself": lambda x: x,
    "vmap": lambda x: tp.vmap(torch.sin)(x),
    "vmap over a tree": lambda x: tp.vmap(lambda d: d["a"] * 2)({"a": x}),
    "vmap that returns it": lambda x: tp.vmap(lambda w: x, in_dims=0)(W)[0],
    "grad": lambda x: tp.grad(cube)(x),
    "grad with aux": lambda x: tp.grad(lambda w: (cube(w), x), has_aux=True)(W)[1],
    "value and grad": lambda x: tp.value_and_grad(cube)(x)[1],
    "vjp": lambda x: tp.vjp(torch.sin, x)[1](ONES)[0],
    "cotangent": lambda x: tp.vjp(torch.sin, W)[1](x)[0],
    "jvp": lambda x: tp.jvp(torch.sin, (x,), (ONES,))[1],
    "tangent": lambda x: tp.jvp(torch.sin, (W,), (x,))[1],
    "jvp that returns it": lambda x: tp.jvp(lambda w: (w, x), (W,), (ONES,))[0][1],
    "jacrev": lambda x: tp.jacrev(torch.sin)(x).sum(0),
    "jacfwd": lambda x: tp.jacfwd(torch.sin)(x).sum(0),
    "jacrev of a constant": lambda x: tp.jacrev(lambda w: (w * 2, x), has_aux=True)(W)[1],
    "hessian": lambda x: tp.hessian(cube)(x).sum(0),
    "linearize": lambda x: tp.linearize(torch.sin, x)[1](x),
    "remat": lambda x: tp.remat(torch.sin)(x),
    "custom rule": lambda x: _doubled(x),
    "vmap of grad": lambda x: tp.vmap(tp.grad(lambda t: t**3))(x),
    "scan": lambda x: tp.scan(lambda c, t: (c + t, t), torch.zeros((), dtype=D), x)[1],
    "map": lambda x: tp.map(torch.sin, x),
    "cond": lambda x: tp.cond(W[0] < 0, lambda: x, lambda: W),
    "associative scan": lambda x: tp.associative_scan(torch.mul, x),
}


@tp.custom_vjp
def _doubled(x):
    return torch.sin(x)


_doubled.defvjp(lambda x: (torch.sin(x), x), lambda x, g: (g * torch.cos(x),))


def _scanned(inner, x, **options):
    return tp.scan(lambda c, _: (torch.sin(c) + inner(x).sum(), None), x[0], None, length=3, **options)[0]


def _plain(inner, x):
    c = x[0]
    for _ in range(3):
        c = torch.sin(c) + inner(x).sum()
    return c


OUTER = {  # a loop or a branch, and its reference
    "scan": (_scanned, _plain),
    "scan with remat": (lambda inner, x: _scanned(inner, x, remat=2), _plain),
    "while loop": (
        lambda inner, x: tp.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, torch.sin(c[1]) + inner(x).sum()), (torch.tensor(0), x[0]), max_steps=3
        )[1],
        _plain,
    ),
    "branch": (
        lambda inner, x: tp.cond(x.sum() > 0, lambda: inner(x).sum(), lambda: x.sum()),
        lambda inner, x: inner(x).sum(),
    ),
}  # fmt: skip


def _forward_derivative(fn):
    return lambda x: tp.jvp(fn, (x,), (ONES,))[1]


def _mapped_gradient(fn):
    return lambda x: tp.vmap(tp.grad(fn))(torch.stack([x, x * 2]))


def _itself(fn):
    return fn


@cache  # three loops compute the same
def _wanted(transform, plain, inner):
    return transform(partial(plain, INNER[inner]))(X)


@pytest.mark.parametrize(("outer", "inner"), daily(product(OUTER, INNER), every=5))
def test_what_is_captured_whole_is_followed(outer, inner):
    run, plain = OUTER[outer]
    fn = partial(run, INNER[inner])
    for transform in (tp.grad, _forward_derivative, _mapped_gradient, tp.hessian):
        assert_close(transform(fn)(X), _wanted(transform, plain, inner), rtol=1e-10, atol=1e-12)
    for transform in (_itself, tp.grad, _mapped_gradient):
        assert_close(tp.make_graph(transform(fn))(X)(X), _wanted(transform, plain, inner), rtol=1e-10, atol=1e-12)


def _nested(x, **options):
    def outer(c, _):
        return tp.scan(lambda d, _: (torch.sin(d) * x, None), c, None, length=4, **options)[0], None

    return tp.scan(outer, x, None, length=4, **options)[0]


def test_nested_loops_with_remat():
    x = torch.tensor(0.9, dtype=D)
    plain, rematerialised = (
        (lambda x: tp.linearize(_nested, x)[1](x)),
        (lambda x: tp.linearize(lambda x: _nested(x, remat=2), x)[1](x)),
    )
    assert_close(tp.grad(rematerialised)(x), tp.grad(plain)(x))
    assert_close(tp.make_graph(tp.grad(rematerialised))(x)(x), tp.grad(plain)(x))


def _solved(c):
    matrix = torch.eye(4, dtype=D) * 3 + torch.outer(torch.tanh(c), torch.tanh(c))
    return torch.sin(torch.linalg.solve(matrix, c)) + torch.linalg.det(matrix)


SOLVED = {
    "scan": lambda x: tp.scan(lambda c, _: (_solved(c), None), x, None, length=2)[0].sum(),
    "scan with remat": lambda x: tp.scan(lambda c, _: (_solved(c), None), x, None, length=2, remat=1)[0].sum(),
    "while loop": lambda x: tp.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, _solved(c[1])), (torch.tensor(0), x), max_steps=2
    )[1].sum(),
    "branch": lambda x: tp.cond(x.sum() > 0, lambda x: _solved(_solved(x)).sum(), lambda x: x.sum(), x),
}


SECOND = {
    "hessian": tp.hessian,
    "forward over forward": lambda f: tp.jacfwd(tp.jacfwd(f)),
    "reverse over forward": lambda f: tp.jacrev(tp.jacfwd(f)),
}
TRACED = [(name, "reverse over forward") for name in SOLVED if name != "while loop"]


@cache
def _second_derivatives():
    return tp.jacrev(tp.jacrev(lambda x: _solved(_solved(x)).sum()))(X)


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("name", SOLVED)
def test_wrong_derivatives_of_torch_are_replaced_in_bodies_too(name, second):
    assert_close(SECOND[second](SOLVED[name])(X), _second_derivatives())


@pytest.mark.parametrize(("name", "second"), [row if row in TRACED else proof(*row) for row in product(SOLVED, SECOND)])
def test_wrong_derivatives_of_torch_are_replaced_in_traced_bodies_too(name, second):
    graph = tp.make_graph(SECOND[second](SOLVED[name]))(X)
    assert_close(graph(X), _second_derivatives())


def _scan_twice(f):
    return lambda x: tp.scan(lambda c, _: (c + torch.tanh(f(c)) * W, None), x, None, length=2, remat=1)[0].sum()


def test_derivatives_of_derivatives_of_loops():
    plain = lambda x: sum(_steps_plainly(x))  # noqa: E731
    once = lambda x: tp.jvp(_scan_twice(lambda c: (c**2).sum()), (x,), (W,))[1]  # noqa: E731
    wanted = tp.jacrev(tp.jacrev(lambda x: tp.jacrev(plain)(x) @ W))(X)
    assert_close(tp.hessian(once)(X), wanted)
    inner = lambda x: ONES @ tp.hessian(_scan_twice(lambda c: (c**2).sum()))(x) @ W  # noqa: E731
    reference = lambda x: ONES @ tp.jacrev(tp.jacrev(plain))(x) @ W  # noqa: E731
    assert_close(tp.hessian(inner)(X), tp.jacrev(tp.jacrev(reference))(X))


def _steps_plainly(x):
    for _ in range(2):
        x = x + torch.tanh((x**2).sum()) * W
    return x


SQUARE = torch.tensor([[0.5, -1.0], [0.8, 0.3]], dtype=torch.float64)


def _rebound(run):
    def fn(x):
        for weight in (SQUARE, SQUARE.sin(), SQUARE * 2):
            x = run(lambda c, _: (torch.tanh(weight @ c), None), x)  # noqa: B023 the test needs the rebinding
        scale = 2.0
        helper = lambda c: c.sin() * scale  # noqa: E731
        x = run(lambda c, _: (helper(c), None), x)
        scale = 100.0
        return x.sum()

    return fn


def _plain_loop(body, x):
    for _ in range(2):
        x, _y = body(x, None)
    return x


REBOUND = {
    "scan": lambda body, x: tp.scan(body, x, None, 2)[0],
    "scan, remat": lambda body, x: tp.scan(body, x, None, 2, remat=1)[0],
    "fori_loop": lambda body, x: tp.fori_loop(0, 2, lambda _, c: body(c, None)[0], x),
    "while_loop": lambda body, x: tp.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, body(c[1], None)[0]), (x.sum() * 0, x), max_steps=3
    )[1],
    "cond": lambda body, x: _plain_loop(
        lambda c, _: (tp.cond(c.sum() < 99, lambda c: body(c, None)[0], torch.sin, c), None), x
    ),
    "remat": lambda body, x: tp.remat(lambda c: _plain_loop(body, c))(x),
}


@pytest.mark.parametrize("name", REBOUND)
@pytest.mark.parametrize(
    "outer", [lambda f: f, lambda f: lambda x: tp.make_graph(f)(x)(x), lambda f: lambda x: tp.vmap(f)(x[None])[0]]
)
def test_a_body_keeps_the_values_of_its_closure_at_the_call(name, outer):
    x = torch.tensor([0.3, -0.4], dtype=torch.float64)
    wanted = tp.grad(_rebound(_plain_loop))(x)
    torch.testing.assert_close(outer(tp.grad(_rebound(REBOUND[name])))(x), wanted)


def test_a_body_can_write_to_a_nonlocal_name():
    calls = 0

    def body(c, _):
        nonlocal calls
        calls += 1
        return c.sin(), None

    tp.grad(lambda x: tp.scan(body, x, None, 2, remat=1)[0])(torch.tensor(0.3))
    assert calls >= 2


def test_functions_of_a_namespace_without_a_name_may_capture():
    """What `exec` makes in a dict without `__name__` has no `__module__`."""
    lines = [
        "def total(factor, xs):",
        "    def step(carry, x):",
        "        return carry + factor * x, None",
        "    return tp.scan(step, factor * 0, xs)[0]",
        "def optimizer(rate):",
        "    scale = lambda g, p: -rate * g",
        "    return tp.optim.stateless(scale)",
    ]
    space = {"tp": tp}
    exec("\n".join(lines), space)
    assert space["total"].__module__ is None
    assert_close(tp.grad(space["total"])(torch.tensor(2.0, dtype=D), X), X.sum())
    chained = tp.optim.chain(space["optimizer"](0.1), tp.optim.adam(1e-2))
    updates, _ = chained.update(ONES, chained.init(X), X)
    assert_close(updates, torch.full_like(X, 1e-2), rtol=1e-3, atol=0)

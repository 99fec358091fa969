"""while_loop, fori_loop and map equal Python loops in every stack of transforms."""

import pytest
import torch
from loops import DEEP, T, traced
from stacks import STACKS, D, U
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import StructureError, TransformError

FORWARD = [
    name for name in STACKS if not any(word in name for word in ("grad", "vjp", "jacrev", "lin", "hess", "value and"))
]


def grows(u, **options):
    init = (u, u + 1.5)
    return tp.while_loop(lambda s: s[1].sum() < 5, lambda s: (s[0] * torch.sin(u) + 1, s[1] * 1.7), init, **options)[
        0
    ].sum()


def grown(u):
    a, b = u, u + 1.5
    for _ in range(8):
        on = b.sum() < 5
        a, b = torch.where(on, a * torch.sin(u) + 1, a), torch.where(on, b * 1.7, b)
    return a.sum()


def counted(u):
    return tp.fori_loop(0, (u[0] * 5).long() + 2, lambda i, c: torch.sin(c * u) + i, u).sum()


def counts(u):
    c = u
    for i in range(9):
        c = torch.where(i < (u[0] * 5).long() + 2, torch.sin(c * u) + i, c)
    return c.sum()


def fixed(u):
    c = u
    for i in (1, 2, 3):
        c = torch.sin(c * u) + i
    return c.sum()


BOTH = {
    "while, bounded": (lambda u: grows(u, max_steps=8), grown),
    "fori": (lambda u: tp.fori_loop(1, 4, lambda i, c: torch.sin(c * u) + i, u).sum(), fixed),
    "map": (lambda u: tp.map(lambda x: torch.sin(x * u), T).prod(0).sum(), lambda u: torch.sin(T[:, None] * u).prod(0).sum()),
    "map, batches": (
        lambda u: tp.map(lambda x: torch.sin(x * u), T, batch_size=3).prod(0).sum(),
        lambda u: torch.sin(T[:, None] * u).prod(0).sum(),
    ),
}  # fmt: skip
ONLY_FORWARD = {"while": (grows, grown), "fori, tensors": (counted, counts)}


def check(actual, expected):
    assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("program", BOTH)
def test_a_loop_is_a_loop(program, stack):
    f, reference = BOTH[program]
    check(STACKS[stack](f), STACKS[stack](reference))


@pytest.mark.parametrize("stack", DEEP)
@pytest.mark.parametrize("program", BOTH)
def test_a_traced_loop_is_a_loop(program, stack, monkeypatch):
    f, reference = BOTH[program]
    check(traced(STACKS[stack], f, monkeypatch)[1], STACKS[stack](reference))


@pytest.mark.parametrize("stack", FORWARD)
@pytest.mark.parametrize("program", ONLY_FORWARD)
def test_forward_derivatives_of_a_loop_of_unknown_length(program, stack, monkeypatch):
    f, reference = ONLY_FORWARD[program]
    expected = STACKS[stack](reference)
    check(STACKS[stack](f), expected)
    if "autograd" not in stack:
        check(traced(STACKS[stack], f, monkeypatch)[1], expected)


@pytest.mark.parametrize("stack", ["grad", "hessian", "autograd", "autograd twice", "grad grad", "jvp grad"])
def test_eager_gradients_of_a_loop_of_unknown_length(stack):
    check(STACKS[stack](grows), STACKS[stack](grown))


def test_members_that_are_done_keep_their_value():
    limits = torch.tensor([5.0, 100.0, 1.0])
    run = tp.vmap(lambda y: tp.while_loop(lambda x: x < y, lambda x: x * 2, torch.tensor(3.0)))
    assert run(limits).tolist() == tp.make_graph(run)(limits)(limits).tolist() == [6.0, 192.0, 3.0]


def test_bounds_and_batches():
    assert tp.fori_loop(3, 1, lambda i, c: c + 1, torch.tensor(0)) == 0
    assert tp.fori_loop(torch.tensor(1), 4, lambda i, c: c + i, 0) == 6
    assert tp.while_loop(lambda c: True, lambda c: c + 1, 0, max_steps=3) == 3
    for size in (1, 2, 3, 4, 9):
        check(tp.map(lambda x: {"y": x * 2}, T, batch_size=size), {"y": T * 2})
    assert tp.map(lambda x: x * 2, T[:0], batch_size=2).shape == (0,)


def below(c):
    return c["a"].sum() < 0


def all_below(c):
    return c["a"] < 0


def step(c):
    return c


def loses(c):
    return {"b": c["a"]}


def grow(c):
    return {"a": torch.stack([c["a"], c["a"]])}


A = {"a": -U}
LINE = {
    f.__name__: f"`{f.__name__}` (test_while_loop.py:{f.__code__.co_firstlineno})"
    for f in (all_below, step, loses, grow)
}
ERRORS = {
    "test": (
        lambda u: tp.while_loop(all_below, step, {"a": u}),
        TransformError,
        f"while_loop: {LINE['all_below']}: the condition must be a bool of shape (), got a bool tensor of shape (2,). "
        "Compare, or reduce with .any() or .all()",
    ),
    "structure": (
        lambda u: tp.while_loop(below, loses, {"a": u}),
        StructureError,
        f"while_loop: {LINE['loses']}: the carry that it returns, against the one that it is given: trees differ at `.`: "
        "wanted keys 'a', got 'b' (missing 'a'; unexpected 'b')",
    ),
    "shape": (
        lambda u: tp.while_loop(below, grow, {"a": u}),
        TransformError,
        f"while_loop: {LINE['grow']} must return a carry like the one that it is given: at `a` wanted a float64 tensor of "
        "shape (2,), got a float64 tensor of shape (2, 2). Convert it there, or start with one like it",
    ),
    "max_steps": (
        lambda u: tp.while_loop(below, step, {"a": u}, max_steps=1.5),
        TransformError,
        "while_loop: max_steps must be an int of at least 0, or None, got float 1.5",
    ),
    "bound": (
        lambda u: tp.fori_loop(0, 1.5, lambda i, c: c, u),
        TransformError,
        "fori_loop: upper must be an integer of shape (), got float 1.5",
    ),
    "batch_size": (
        lambda u: tp.map(torch.sin, u, batch_size=0),
        TransformError,
        "map: batch_size must be an int of at least 1, or None, got int 0",
    ),
    "no tensor": (
        lambda u: tp.map(step, {"p": 1}),
        TransformError,
        f"map: {LINE['step']}: xs at `p` must be a tensor whose dimension 0 has the slices, got int 1. What is the same for "
        "all steps can be captured",
    ),
    "no function": (lambda u: tp.fori_loop(0, 1, 3, u), TransformError, "fori_loop: wanted a function, got int 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    run, kind, message = ERRORS[name]
    for call in (lambda: run(-U), lambda: tp.make_graph(run)(-U)):
        with pytest.raises(kind) as error:
            call()
        assert str(error.value) == message


def test_a_traced_loop_of_unknown_length_has_no_gradient():
    def doubles(x):
        return x * 2

    f = tp.grad(lambda x: tp.while_loop(lambda x: x < 100, doubles, x))
    x = torch.tensor(3.0, dtype=D)
    for call in (lambda: tp.make_graph(f)(x), lambda: tp.vmap(f)(x[None])):
        with pytest.raises(TransformError) as error:
            call()
        assert str(error.value) == (
            f"while_loop: `doubles` (test_while_loop.py:{doubles.__code__.co_firstlineno}) runs an unknown number of times, which "
            "a backward pass cannot go back through: bound it with max_steps, use fori_loop, or go forwards with jvp or jacfwd"
        )
    assert f(x) == 64


def _by_number(x):
    def body(c, i):
        c = c.clone()
        c[i] = x[i] * 2
        return c, None

    return tp.scan(body, torch.zeros(3, dtype=D), torch.arange(3))[0]


def _by_counter(x):
    def body(carry):
        c, i = carry
        c = c.clone()
        c[i] = x[i] * 2
        return c, i + 1

    return tp.while_loop(lambda carry: carry[1] < 3, body, (torch.zeros(3, dtype=D), torch.tensor(0)), max_steps=4)[0]


def _by_row(x):
    def body(i, c):
        c = c.clone()
        c[i] = x[i] * torch.ones(2, dtype=D)
        c[i, 1] = x[i] * 3
        return c

    return tp.fori_loop(0, 3, body, torch.zeros(3, 2, dtype=D))


WRITES = {  # loops that write batched values into an unbatched carry, and their results
    "by number": (_by_number, lambda x: x * 2),
    "by counter": (_by_counter, lambda x: x * 2),
    "by row": (_by_row, lambda x: torch.stack([x, x * 3], -1)),
}


@pytest.mark.parametrize("name", WRITES)
def test_an_unbatched_carry_becomes_batched(name):
    f, wanted = WRITES[name]
    xs = torch.tensor([[0.3, -1.0, 2.0], [0.5, 0.1, -0.2]], dtype=D)
    loss, true = (lambda x, g=g: (g(x) ** 3).sum() for g in (f, wanted))
    mapped = torch.func.vmap(wanted)
    assert_close(tp.vmap(f)(xs), mapped(xs))
    assert_close(tp.vmap(tp.vmap(f))(xs[None])[0], mapped(xs))
    assert_close(tp.vmap(tp.grad(loss))(xs), torch.func.vmap(torch.func.grad(true))(xs))
    assert_close(tp.vmap(tp.hessian(loss))(xs), torch.func.vmap(torch.func.hessian(true))(xs))
    assert_close(tp.jit(tp.vmap(tp.grad(loss)))(xs), torch.func.vmap(torch.func.grad(true))(xs))
    assert_close(tp.jit(tp.vmap(f))(xs), mapped(xs))

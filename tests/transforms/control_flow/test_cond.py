"""cond and switch equal `if` in every stack of transforms, eager and traced."""

import pytest
import torch
from loops import DEEP, T, traced, unrolled
from stacks import STACKS, XS, D, U
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import StructureError, TransformError


def pick(i, *values):
    out = values[-1]
    for number, value in enumerate(values[:-1]):
        out = torch.where(i <= number, value, out)
    return out


def either(u):
    return tp.cond(u[0] > 0.25, lambda v: torch.sin(v * u), lambda v: torch.cos(v) * u[1], u * 2).sum()


def one_of(u):
    branches = [lambda v: v**2, lambda v: torch.sin(v) * u, lambda v: v * u.sum()]
    return tp.switch((u[0] * 5).long(), branches, u + 1).sum()


def in_a_loop(u):
    return tp.scan(lambda c, x: (tp.cond(x > 0, lambda c: torch.sin(c * u), lambda c: c * c, c), None), u, T)[0].sum()


def around_a_loop(u):
    def loops(v):
        return tp.scan(lambda c, x: (torch.sin(c * u) + x, None), v, T)[0]

    return tp.cond(u[0] > 0.25, loops, lambda v: v * 2, u).sum()


PROGRAMS = {
    "cond": (either, lambda u: torch.where(u[0] > 0.25, torch.sin(2 * u * u), torch.cos(2 * u) * u[1]).sum()),
    "switch": (
        one_of,
        lambda u: pick((u[0] * 5).long(), (u + 1) ** 2, torch.sin(u + 1) * u, (u + 1) * u.sum()).sum(),
    ),
    "in a loop": (
        in_a_loop,
        lambda u: unrolled(lambda c, x: (torch.where(x > 0, torch.sin(c * u), c * c), None), u, T)[0].sum(),
    ),
    "around a loop": (
        around_a_loop,
        lambda u: torch.where(u[0] > 0.25, unrolled(lambda c, x: (torch.sin(c * u) + x, None), u, T)[0], u * 2).sum(),
    ),
}


def check(actual, expected):
    assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("program", ["cond", "switch"])
def test_a_choice_is_an_if(program, stack):
    f, reference = PROGRAMS[program]
    check(STACKS[stack](f), STACKS[stack](reference))


@pytest.mark.parametrize("stack", DEEP)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_traced_choice_is_an_if(program, stack, monkeypatch):
    f, reference = PROGRAMS[program]
    expected = STACKS[stack](reference)
    check(STACKS[stack](f), expected)
    check(traced(STACKS[stack], f, monkeypatch)[1], expected)


@pytest.mark.parametrize("x", [[0.0, 4.0], [0.0, 0.0], [4.0, 1.0]])
def test_an_infinite_derivative_of_the_other_branch_does_no_harm(x):
    x = torch.tensor(x, dtype=D)

    def root(x):
        return tp.cond(x > 0, torch.sqrt, lambda x: 2 * x, x)

    expected = torch.where(x > 0, 0.5 / torch.sqrt(x), 2.0)
    for f in (tp.vmap(tp.grad(root)), tp.grad(lambda x: tp.vmap(root)(x).sum()), tp.vmap(tp.jacfwd(root))):
        check(f(x), expected)
        check(tp.make_graph(f)(x)(x), expected)


def test_only_one_branch_runs():
    runs = []
    tp.cond(torch.tensor(True), lambda: runs.append(1), lambda: runs.append(2))
    tp.grad(lambda x: tp.switch(x.long(), [lambda: runs.append(3) or x, lambda: runs.append(4) or x * x]))(
        torch.tensor(1.5)
    )
    tp.vmap(lambda x: tp.cond(torch.tensor(False), lambda: runs.append(5), lambda: runs.append(6) or x))(U)
    assert runs == [1, 4, 6]
    graph = tp.make_graph(tp.vmap(lambda x, p: tp.cond(p, torch.sin, torch.cos, x), in_dims=(0, None)))(
        U, torch.tensor(True)
    )
    assert any("switch" in str(node.target) for node in graph.module.graph.nodes)


def test_an_index_out_of_range_is_clamped():
    branches = [lambda x: x, lambda x: 2 * x]
    for index in (-3, 7, torch.tensor(-3), torch.tensor(7, dtype=torch.int32)):
        wanted = U if int(index) < 0 else 2 * U
        check(tp.switch(index, branches, U), wanted)
        check(tp.make_graph(lambda u, index=index: tp.switch(index, branches, u))(U)(U), wanted)
    check(tp.vmap(lambda i: tp.switch(i, branches, U))(torch.tensor([-3, 7])), torch.stack([U, 2 * U]))


def same(x):
    return {"a": x}


def other(x):
    return {"b": x}


def longer(x):
    return {"a": torch.stack([x, x])}


LINE = {f.__name__: f"`{f.__name__}` (test_cond.py:{f.__code__.co_firstlineno})" for f in (same, other, longer)}
ERRORS = {
    "pred": (
        lambda u: tp.cond(u > 0, same, other, u),
        TransformError,
        "cond: the condition must be a bool of shape (), got a bool tensor of shape (2,). Compare, or reduce with .any() or "
        ".all()",
    ),
    "pred dtype": (
        lambda u: tp.cond(3, same, other, u),
        TransformError,
        "cond: the condition must be a bool of shape (), got int 3",
    ),
    "index": (
        lambda u: tp.switch(u, [same], u),
        TransformError,
        "switch: index must be an integer of shape (), got a float64 tensor of shape (2,)",
    ),
    "branches": (
        lambda u: tp.switch(0, [], u),
        TransformError,
        "switch: branches must be a list of at least one function, got list of 0",
    ),
    "no function": (lambda u: tp.cond(True, same, 3, u), TransformError, "cond: wanted a function, got int 3"),
    "structure": (
        lambda u: tp.cond(u.sum() > 0, same, other, u),
        StructureError,
        f"cond: the branches {LINE['other']} and {LINE['same']}: trees differ at `.`: wanted keys 'b', got 'a' (missing 'b'; "
        "unexpected 'a')",
    ),
    "shape": (
        lambda u: tp.switch(u.sum().long(), [same, longer], u),
        TransformError,
        f"switch: the branches {LINE['same']} and {LINE['longer']} must give the same shapes and dtypes: at `a` a float64 "
        "tensor of shape (2,) against a float64 tensor of shape (2, 2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    run, kind, message = ERRORS[name]
    for call in (lambda: tp.vmap(run)(XS), lambda: tp.make_graph(run)(U)):
        with pytest.raises(kind) as error:
            call()
        assert str(error.value) == message

"""Segmented programs: Python runs the loops, and the parts between them are compiled."""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp
from torchpure.jit._trace import trace
from torchpure.jit.backends import _choose, _segmented
from torchpure.jit.passes._fx import has_control_flow
from torchpure.transforms.calls._primitives import callback_p, scan_p, switch_p, while_p

D = torch.float64
X = torch.linspace(-1, 1, 12, dtype=D).reshape(4, 3)
W = torch.linspace(0, 2, 9, dtype=D).reshape(3, 3)
CALLS = []


def scanned(x, w):
    def body(c, row, w):
        c = torch.tanh(c @ w + row).flip(0)
        return c, c * 2, row.sum()

    c, ys, sums = scan_p(body, (x.sin().cos().sum(0),), (x.t().contiguous().t(),), (w.t(),), 4, False)
    return c.exp() + 1, ys, sums.sin().cos() * 2


def backwards(x, w):
    return scan_p(lambda c, row, w: (c @ w + row, c - row), (x[0],), (x,), (w,), 4, True)


def none(x, w):
    return scan_p(lambda c, w: (c @ w, c * 2), (x[0],), (), (w,), 0, False)


def looped(x, w):
    i, x = while_p(lambda i, c, w: i < 5, lambda i, c, w: (i + 1, c @ w / 3), (torch.tensor(0), x), (w,))
    return i, x


def branched(x, w):
    index = (x.sum() > 5).long()
    return switch_p(index, (lambda x, w: (x @ w + x @ w,), lambda x, w: (x.sin(),)), (x, w))


def nested(x, w):
    def outer(c, row, w):
        (inner,) = scan_p(lambda d, w: (d * w.sin()[0],), (c + row,), (), (w,), 3, False)
        return inner + row, inner.sum()

    return scan_p(outer, (x[0],), (x,), (w,), 4, False)


def with_callback(x, w):
    def body(c, row, w):
        callback_p(lambda c: CALLS.append(c.clone()), (c,), "c")
        return (c + row @ w,)

    return scan_p(body, (x[0],), (x,), (w,), 4, False)


def in_place(x, w):
    made = torch.zeros(4, 3, dtype=D)
    made.add_(x).mul_(2).sub_(1)
    (c,) = scan_p(lambda c, row: (c + row,), (made[0],), (made,), (), 4, False)
    row = made[1]
    row.add_(c).mul_(2).sub_(1)
    return c, made, row * 2


def aliases(x, w):
    (c,) = scan_p(lambda c, row: (row.clone(),), (x[0],), (x,), (), 4, False)
    return x, w.t(), c, c


PROGRAMS = [scanned, backwards, none, looped, branched, nested, with_callback, in_place, aliases]


def uncompiled(module, tensors):
    """Return a part uncompiled."""
    if has_control_flow(module):
        return _segmented.compile_program(module, tensors, uncompiled)
    run = lambda *tensors: module(*tensors)  # noqa: E731
    run.source = "part"
    return run


@pytest.mark.parametrize("f", PROGRAMS)
def test_parts_compute_what_the_function_does(f):
    """The parts are not compiled, so only the loops are tested."""
    module = trace(f, lambda values: (tuple(values), {}), (X, W)).module
    CALLS.clear()
    program = _segmented.compile_program(module, (X, W), uncompiled)
    for x, w in ((X, W), (X * 20, W.t()), (X.t().contiguous().t(), W)):
        wanted = f(x, w)
        if f is with_callback:
            assert len(CALLS) == 4
            CALLS.clear()
        got = program(x, w)
        assert len(got) == len(wanted)
        assert_close(tuple(got), tuple(wanted), rtol=1e-12, atol=1e-13)
        if f is with_callback:
            assert len(CALLS) == 4
            CALLS.clear()


@pytest.mark.compile
def test_parts_are_compiled():
    module = trace(scanned, lambda values: (tuple(values), {}), (X, W)).module
    program = _segmented.compile_program(
        module, (X, W), lambda part, given: _choose.compile_without_native(part, given, "the test says so")
    )
    assert "cpp_fused" in program.source
    assert_close(tuple(program(X, W)), scanned(X, W), rtol=1e-12, atol=1e-13)
    assert_close(tuple(program(X, W.t())), scanned(X, W.t()), rtol=1e-12, atol=1e-13)


def kept(result):
    """Return a function that changes a result of loops in place, and also returns what the result was made from."""

    def f(x):
        y = x.sin()
        first, second = result(y)
        return first.mul_(3), y if second is None else second

    return f


def none_of(y):
    return tp.while_loop(lambda c: c.sum() > 1e9, lambda c: c * 2, y)


CHANGED = {  # results of loops on y: one to change, another to look at (y itself), and what both are then
    "carry": (lambda y: (tp.scan(lambda c, _: (c * 1, None), y, None, length=2)[0], None), lambda y: (3 * y, y)),
    "no turn": (lambda y: (none_of(y), None), lambda y: (3 * y, y)),
    "no step": (lambda y: tp.scan(lambda c, x: (c, c), y, y[:0]), lambda y: (3 * y, y.new_zeros(0, 4, 3))),
    "rows": (lambda y: tp.scan(lambda c, _: (c, c), y, None, length=2), lambda y: (3 * y, torch.stack([y, y]))),
    "twice": (lambda y: tp.scan(lambda c, _: ((c[0], c[0]), None), (y, y), None, length=2)[0], lambda y: (3 * y, y)),
    "branch": (lambda y: (tp.cond(y.sum() > -1e9, lambda y: y, torch.cos, y), None), lambda y: (3 * y, y)),
    "part": (lambda y: (tp.cond(y.sum() > -1e9, lambda y: y[0], lambda y: y[1], y), None), lambda y: (3 * y[0], y)),
    "captured": (lambda y: (tp.cond(y.sum() > -1e9, lambda: y, lambda: y * 2), None), lambda y: (3 * y, y)),
    "totals": (lambda y: (tp.associative_scan(torch.add, y[:1]), None), lambda y: (3 * y[:1], y)),
    "remat": (lambda y: (tp.remat(lambda y: y)(y), None), lambda y: (3 * y, y)),
}


@pytest.mark.parametrize("name", CHANGED)
def test_law_results_of_loops_share_no_memory(name):
    """An in-place change of one result changes nothing else: in eager, under transforms, and in programs."""
    f, wanted = kept(CHANGED[name][0]), lambda x: CHANGED[name][1](x.sin())
    total = lambda f: lambda x: sum((leaf * leaf.cos()).sum() for leaf in f(x))  # noqa: E731
    assert_close(f(X), wanted(X))
    assert_close(tp.jit(f)(X), wanted(X))
    assert_close(tp.vmap(f)(X[None])[0][0], wanted(X)[0])
    assert_close(tp.vmap(f)(X[None])[1][0], wanted(X)[1])
    assert_close(tp.jvp(total(f), (X,), (X,)), tp.jvp(total(wanted), (X,), (X,)))
    if name != "no turn":  # which has no gradient
        assert_close(tp.grad(total(f))(X), tp.grad(total(wanted))(X))


@pytest.mark.parametrize("name", CHANGED)
def test_results_of_loops_share_no_memory_in_segmented_programs(name):
    """The same where Python runs the loops."""
    f, wanted = kept(CHANGED[name][0]), lambda x: CHANGED[name][1](x.sin())
    module, x = trace(f, lambda values: (tuple(values), {}), (X,)).module, X.clone()
    assert_close(tuple(_segmented.compile_program(module, (X,), uncompiled)(x)), wanted(X))
    assert torch.equal(x, X)

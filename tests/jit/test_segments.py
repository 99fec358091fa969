"""Programs with loops in parts: Python runs the loops, what is straight is compiled."""

import pytest
import torch
from torch.testing import assert_close

from torchpure.jit import _backends, _segments
from torchpure.jit._nodes import has_loops
from torchpure.jit._trace import trace
from torchpure.transforms._primitives import callback_p, scan_p, switch_p, while_p

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


@pytest.mark.parametrize("f", PROGRAMS)
def test_parts_compute_what_the_function_does(f):
    """With parts that are not compiled, so that the loops alone are looked at."""
    whole = []

    def compiled(module, tensors):
        whole.append(has_loops(module))
        if has_loops(module):
            return _segments.compiled(module, tensors, compiled)
        run = lambda *tensors: module(*tensors)  # noqa: E731
        run.source = "part"
        return run

    module = trace(f, lambda values: (tuple(values), {}), (X, W)).module
    CALLS.clear()
    program = _segments.compiled(module, (X, W), compiled)
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
    program = _segments.compiled(module, (X, W), _backends.without_native)
    assert "cpp_fused" in program.source
    assert_close(tuple(program(X, W)), scanned(X, W), rtol=1e-12, atol=1e-13)
    assert_close(tuple(program(X, W.t())), scanned(X, W.t()), rtol=1e-12, atol=1e-13)

"""Nested tensors, captured or given: right, or an error that says so."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp
from torchpure.errors import ParameterError, TransformError

LAYOUTS = {"strided": torch.strided, "jagged": torch.jagged}
W = torch.tensor([[1.0, -0.5], [0.25, 2.0]])
ONE = torch.tensor(1.0)
WANTED = torch.full((2, 2), 8.0)
pytestmark = pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors", "ignore:There is a performance drop"
)


def _rows(layout):
    return torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2) * 2], layout=LAYOUTS[layout])


def _padded(nested):
    return torch.nested.to_padded_tensor(nested, 0.0)


CAPTURED = {
    "grad": lambda f: tp.grad(f)(W),
    "scan": lambda f: tp.grad(lambda w: tp.scan(lambda c, _: (c + f(w), None), w.sum() * 0, length=2)[0] / 2)(W),
    "grad(grad)": lambda f: tp.grad(lambda w: tp.grad(f)(w).sum())(W),
    "vmap": lambda f: tp.vmap(f)(W[None]),
    "vmap(grad)": lambda f: tp.vmap(tp.grad(f))(W[None]),
    "vjp": lambda f: tp.vjp(f, W),
    "jvp": lambda f: tp.jvp(f, (W,), (W,)),
    "jacrev": lambda f: tp.jacrev(f)(W),
    "hessian": lambda f: tp.hessian(f)(W),
    "jit": lambda f: tp.jit(f)(W),
    "jit(scan)": lambda f: tp.jit(lambda w: tp.scan(lambda c, _: (c + f(w), None), w.sum(), length=2)[0])(W),
}


@pytest.mark.parametrize("call", CAPTURED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_captured_nested_tensor_is_right_or_refused(layout, call):
    nested = _rows(layout)

    def f(w):
        return _padded(F.linear(nested, w)).sum()

    if call in {"grad", "scan"}:
        torch.testing.assert_close(CAPTURED[call](f), WANTED)
        return
    with pytest.raises(TransformError, match=r"\w+: .* a nested tensor, .*: pad it with torch.nested.to_padded_tensor"):
        CAPTURED[call](f)


GIVEN = {
    "vmap": lambda f, n: tp.vmap(f)(n),
    "vjp": lambda f, n: tp.vjp(f, n),
    "jvp": lambda f, n: tp.jvp(f, (n,), (n,)),
    "jacfwd": lambda f, n: tp.jacfwd(f)(n),
    "jacrev": lambda f, n: tp.jacrev(f)(n),
    "hessian": lambda f, n: tp.hessian(f)(n),
}


@pytest.mark.parametrize("call", GIVEN)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_nested_argument_is_refused(layout, call):
    with pytest.raises(TransformError, match=r"\w+: .* is given a nested tensor"):
        GIVEN[call](lambda n: _padded(F.linear(n, W)).sum(), _rows(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_grad_and_jit_take_nested_arguments(layout):
    nested = _rows(layout)

    def f(n):
        return _padded(F.linear(n, W)).sum()

    torch.testing.assert_close(tp.jit(f)(nested), f(nested))
    torch.testing.assert_close(_padded(tp.grad(f)(nested))[1], W.sum(0).expand(3, 2))


@pytest.mark.parametrize(
    "loop", [lambda xs: tp.scan(lambda c, x: (c + x.sum(), None), ONE, xs), lambda xs: tp.map(torch.sum, xs)]
)
def test_loops_refuse_rows_without_a_shape(loop):
    with pytest.raises(TransformError, match=r"(scan|map): .* is given a nested tensor"):
        loop(_rows("strided"))


def test_functional_refuses_a_nested_buffer_without_a_shape():
    layer = nn.Linear(2, 2)
    layer.register_buffer("rows", _rows("strided"))
    with pytest.raises(
        ParameterError, match=r"`rows` is a nested tensor without a shape: make it with layout=torch.jag"
    ):
        tp.functional(layer)


COPYING = {
    "a list": lambda w: torch.nested.nested_tensor([w, 2 * w]),
    "a keyword": lambda w: torch.nested.nested_tensor(tensor_list=[w]),
    "jagged": lambda w: torch.nested.nested_tensor([w], layout=torch.jagged),
}
CONSTANT = {  # (function, its gradient)
    "made of constants": (lambda w: _padded(torch.nested.nested_tensor([ONE.expand(2)])).sum() * w.sum(), 2.0),
    "made of stopped values": (lambda w: _padded(torch.nested.nested_tensor([tp.stop_gradient(w)])).sum() * w.sum(), 2.75),
    "unbound": (lambda w: torch.nested.nested_tensor([ONE.expand(2)]).unbind()[0].sum() * w.sum(), 2.0),
}  # fmt: skip


@pytest.mark.parametrize("make", COPYING.values(), ids=COPYING)
def test_a_nested_copy_of_a_variable_is_refused(make):
    for f in (lambda w: _padded(make(w)).sum(), lambda w: make(w).unbind()[0].sum()):
        for loss in (f, tp.remat(f), lambda w, f=f: tp.scan(lambda c, _: (c + f(w), None), w.sum(), length=2)[0]):
            with pytest.raises(TransformError, match=r"nested_tensor, line .* lost. Use torch.nested.as_nested_tensor"):
                tp.grad(loss)(W)


@pytest.mark.parametrize("name", CONSTANT)
def test_a_nested_constant_is_right(name):
    f, wanted = CONSTANT[name]
    torch.testing.assert_close(tp.grad(f)(W), torch.full((2, 2), wanted))


@pytest.mark.parametrize("make", [torch.nested.nested_tensor, torch.nested.as_nested_tensor])
def test_programs_refuse_to_make_nested_tensors(make):
    with pytest.raises(TransformError, match=r"jit: .* nested tensor, .*: pad it with torch.nested.to_padded_tensor"):
        tp.jit(lambda w: _padded(make([w, w])).sum())(W)


ROWS = {  # of a nested tensor x: the function, and the weights of its rows in the gradient
    "[0]": (lambda x: (x[0] ** 2).sum(), (1, 0)),
    "[-1]": (lambda x: (x[-1] ** 2).sum(), (0, 1)),
    "[tensor]": (lambda x: (x[torch.tensor(1)] ** 2).sum(), (0, 1)),
    "[0][1]": (lambda x: 2 * (x[0][:] ** 2).sum(), (2, 0)),
    "select": (lambda x: (x.select(0, 1) ** 2).sum(), (0, 1)),
    "torch.select": (lambda x: (torch.select(x, 0, 0) ** 2).sum(), (1, 0)),
    "unbind": (lambda x: (x.unbind()[1] ** 2).sum(), (0, 1)),
    "rows": (lambda x: sum((i + 1) * (row**2).sum() for i, row in enumerate(x)), (1, 2)),
}
PARTS = {  # whose gradients torch lacks
    "[..., 0]": lambda x: x[..., 0].values().sum(),
    "[1:2]": lambda x: x[1:2].values().sum(),
    "mask": lambda x: x[torch.tensor([True, False])].values().sum(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_a_nested_argument(name, layout):
    (f, weights), nested = ROWS[name], _rows(layout)
    wanted = [2 * weight * row for weight, row in zip(weights, nested.unbind(), strict=True)]
    for found in (tp.grad(f)(nested), tp.value_and_grad(f)(nested)[1], tp.jit(tp.grad(f))(nested)):
        for got, row in zip(found.unbind(), wanted, strict=True):
            torch.testing.assert_close(got, row)
    torch.testing.assert_close(tp.jit(f)(nested), f(nested))
    for refused in (lambda: tp.vjp(f, nested), lambda: tp.jvp(f, (nested,), (nested,)),
                    lambda: tp.grad(lambda x: f(tp.grad(f)(x)))(nested)):  # fmt: skip
        with pytest.raises(TransformError, match=r"\w+: .* is given a nested tensor, .*: pad it with"):
            refused()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_nested_argument_without_a_gradient_are_refused(name, layout):
    for transform in (tp.grad, tp.value_and_grad, lambda f: tp.jit(tp.grad(f))):
        with pytest.raises(TransformError, match=r"\w+: .* is given a nested tensor, .*: pad it with"):
            transform(PARTS[name])(_rows(layout))

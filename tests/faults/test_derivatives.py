"""Derivatives that were wrong once."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError

pytestmark = pytest.mark.faults
D = torch.float64
ONE = torch.ones((), dtype=D)


def numbers(*values: float, dtype: torch.dtype = D) -> Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_captured_sparse(layout):
    dense = torch.arange(6.0).reshape(2, 3)
    matrix, x = layout(dense), torch.tensor([1.0, -2.0, 3.0])
    assert_close(tp.grad(lambda x: (matrix @ x).sum())(x), dense.sum(0))
    calls = {
        "jvp": lambda: tp.jvp(lambda x: matrix @ x, (x,), (x,))[1],
        "vjp": lambda: tp.vjp(lambda x: matrix @ x, x)[1](torch.ones(2))[0],
        "jit": lambda: tp.jit(lambda x: matrix @ x)(x),
    }
    for name, call in calls.items():
        try:
            assert_close(call(), dense.sum(0) if name == "vjp" else dense @ x)
        except TransformError as error:
            assert str(error).startswith(f"{name}: ") and "use its .to_dense()" in str(error)


def test_cumprod_at_zeros():
    x = numbers(0, 2, 3)
    last = lambda x: x.cumprod(0)[-1]  # noqa: E731
    second = numbers(0, 3, 2), numbers(3, 0, 0), numbers(2, 0, 0)
    assert_close(tp.jacfwd(tp.jacfwd(last))(x), torch.stack(second))
    assert_close(tp.grad(lambda x: tp.jvp(last, (x,), (numbers(1, 1, 1),))[1])(x), torch.stack(second).sum(0))


@pytest.mark.compile
def test_det_singular():
    matrix, adjugate = numbers(1, 3, 2, 6).reshape(2, 2), numbers(6, -2, -3, 1).reshape(2, 2)
    for det in (torch.det, torch.linalg.det):
        assert_close(tp.grad(det)(matrix), adjugate)
    assert_close(tp.jit(tp.grad(torch.det))(matrix), adjugate)
    assert_close(tp.jacrev(torch.det)(0 * matrix), 0 * matrix)


def test_inplace_autograd_function():
    class Triple(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.mul_(3)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.mark_dirty(inputs[0])

        @staticmethod
        def jvp(ctx, tangent):
            return tangent.mul_(3)

    assert_close(tp.jvp(lambda x: Triple.apply(x.clone()), (2 * ONE,), (ONE,)), (6 * ONE, 3 * ONE))


READERS = {
    r"\.item\(\)": lambda x: x * x.item(),
    r"float\(\) or a function of math": lambda x: x * math.sin(x),
    r"\.tolist\(\)": lambda x: x * x.tolist(),
}


@pytest.mark.parametrize("name", READERS)
def test_item_and_float(name):
    for derivative in (tp.grad, lambda f: lambda x: tp.jvp(f, (x,), (ONE,))):
        with pytest.raises(TransformError, match=rf"^{name}, line \d+ of .*, reads numbers from a tensor"):
            derivative(READERS[name])(3 * ONE)


def test_a_tensor_made_of_tensors():
    made = lambda x: torch.tensor([x * x, x]).sum() + 0 * x  # noqa: E731
    assert_close(tp.grad(made)(3 * ONE), 7 * ONE)
    assert_close(tp.jvp(made, (3 * ONE,), (ONE,))[1], 7 * ONE)


@pytest.mark.compile
def test_logcumsumexp_wide_range():
    x = numbers(-200, 0, 1, dtype=torch.float32)
    scan = lambda x: x.logcumsumexp(0)  # noqa: E731
    share = math.e / (1 + math.e)
    wanted = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1 - share, share]])
    for jacobian in (tp.jacrev, tp.jacfwd, lambda f: tp.jit(tp.jacfwd(f))):
        assert_close(jacobian(scan)(x), wanted)
    assert_close(tp.hessian(lambda x: scan(x)[0])(x), torch.zeros(3, 3))


def test_no_grad_inside():
    def cubic(x):
        with torch.no_grad():
            square = x**2
        return square * x

    x = 3 * ONE
    assert_close(tp.grad(cubic)(x), 9 * ONE)
    assert_close(tp.jvp(cubic, (x,), (ONE,))[1], 9 * ONE)
    for second in (tp.hessian(cubic), tp.jacrev(tp.jacrev(cubic)), tp.jacfwd(tp.jacfwd(cubic))):
        assert_close(second(x), 0 * ONE)


@pytest.mark.compile
def test_prod_overflow():
    x = torch.full((3, 3), 1e14).tril()
    ways = (
        tp.grad,
        tp.jacrev,
        tp.jacfwd,
        lambda f: tp.jit(tp.grad(f)),
        lambda f: lambda x: tp.vmap(tp.grad(f))(x[None])[0],
    )
    for way in ways:
        assert_close(way(torch.prod)(x), torch.zeros(3, 3))


def test_sinc_at_zero():
    zero = 0 * ONE
    assert_close(tp.hessian(torch.sinc)(zero), -ONE * math.pi**2 / 3)
    assert_close(tp.grad(tp.grad(torch.sinc))(zero), -ONE * math.pi**2 / 3)
    assert_close(tp.linearize(torch.sinc, zero)[1](ONE), zero)


SPECIAL = {
    "bessel_j0": (torch.special.bessel_j0, lambda x: -torch.special.bessel_j1(x)),
    "modified_bessel_i0": (torch.special.modified_bessel_i0, torch.special.modified_bessel_i1),
    "chebyshev_polynomial_t": (lambda x: torch.special.chebyshev_polynomial_t(x, 2), lambda x: 4 * x),
    "legendre_polynomial_p": (lambda x: torch.special.legendre_polynomial_p(x, 2), lambda x: 3 * x),
    "product": (
        lambda x: x * torch.special.bessel_j0(x),
        lambda x: torch.special.bessel_j0(x) - x * torch.special.bessel_j1(x),
    ),
}


@pytest.mark.compile
def test_special_functions_without_derivative():
    x, functions = 1.2 * ONE, [f for f, _ in SPECIAL.values()]
    wanted = torch.stack([slope(x) for _, slope in SPECIAL.values()])
    together = lambda x: torch.stack([f(x) for f in functions])  # noqa: E731
    assert_close(torch.stack([tp.grad(f)(x) for f in functions]), wanted)
    assert_close(tp.jvp(together, (x,), (ONE,))[1], wanted)
    assert_close(tp.jit(tp.jacrev(together))(x), wanted)


def test_tangent_dtype_of_numbers():
    x, v, weight = torch.tensor([1.5, 2.5]), torch.tensor([1.0, 0.0]), torch.ones(2, 2)
    half = tp.jvp(lambda x: x.sum() + 1.0, (x.bfloat16(),), (v.bfloat16(),))[1]
    assert_close(half, torch.tensor(1.0, dtype=torch.bfloat16))
    assert_close(tp.jvp(lambda x: x.mean() * 0.5, (x,), (v,))[1], torch.tensor(0.25))
    assert_close(tp.jacfwd(lambda x: x.sum() / 4.0)(x), torch.full((2,), 0.25))
    product = tp.jvp(lambda x: weight @ torch.stack([x[0] * 1.5, x[1] * 2.0]), (x,), (v,))[1]
    assert_close(product, torch.full((2,), 1.5))
    looped = tp.scan(lambda c, _: (tp.jvp(lambda z: z * 1.5, (c,), (c,))[1], None), x[0], length=3)[0]
    assert_close(looped, torch.tensor(1.5**4))
    slope = tp.vjp(lambda a: tp.jvp(lambda a: a * a * 1.5, (a,), (torch.ones(()),))[1], x[0])[1](torch.ones(()))[0]
    assert_close(slope, torch.tensor(3.0))


X = numbers(1.5, 2.5)
WITH_A_NUMBER = {
    "leaky_relu": lambda a: functional.leaky_relu(-X, a).sum(),
    "full": lambda a: torch.full((2,), a, dtype=D).sum(),
    "add": lambda a: torch.add(X, X, alpha=a).sum(),
    "softplus": lambda a: functional.softplus(X, a).sum(),
    "smooth_l1_loss": lambda a: functional.smooth_l1_loss(X, 0 * X, beta=a),
    "rms_norm": lambda a: functional.rms_norm(X, (2,), eps=a).sum(),
}


@pytest.mark.parametrize("name", WITH_A_NUMBER)
def test_tensor_where_a_number_is_wanted(name):
    f, a, step = WITH_A_NUMBER[name], 0.3 * ONE, 1e-5
    wanted = (f(a + step) - f(a - step)) / (2 * step)
    assert abs(wanted) > 0.01
    for slope in (tp.jvp(f, (a,), (ONE,))[1], tp.jacfwd(f)(a), tp.grad(f)(a)):
        assert_close(slope, wanted.to(slope.dtype), rtol=1e-6, atol=1e-6)

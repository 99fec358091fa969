"""A tangent has the dtype of its primal: a Python number changes neither."""

import pytest
import torch
from torch.nn import functional as F

import torchpure as tp
from torchpure.errors import TransformError

W = torch.ones(2, 2)
FUNCTIONS = {  # of a tensor of shape ()
    "times": lambda x: x * 1.5,
    "plus": lambda x: 0.5 + x,
    "minus": lambda x: 0.5 - x,
    "over": lambda x: x / 3.0,
    "under": lambda x: 1.5 / x,
    "power": lambda x: x**2.5,
    "exponent": lambda x: 0.5**x,
    "polynomial": lambda x: 1.5 * x**3 - 0.5 * x * x + x / 3.0 + 2.0,
    "in place": lambda x: (x * x).mul_(0.5).add_(0.25).div_(3.0).sub_(0.1),
    "where": lambda x: torch.where(x > 0.5, x * 0.5, 0.25),
    "clamp": lambda x: (x * 0.5).clamp(0.1, 0.9) * 2.0,
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x * 0.5, x, value=0.3),
    "xlogy": lambda x: torch.xlogy(x, 0.5),
    "constants inside of torch": lambda x: torch.erf(x) * F.gelu(x) + torch.log10(x) + torch.exp2(x) + torch.logit(x),
    "deviation": lambda x: torch.stack([x * 0.5, x * x, x + 1.0]).std() * 2.0,
    "matrix": lambda x: (W.to(x.dtype) @ torch.stack([x * 1.5, x + 1.0])).sum(),
    "mean": lambda x: torch.stack([x, x * x]).mean() * 0.5,
}
ONE = torch.ones(())
DERIVATIVES = {
    "jvp": lambda f, x, one: tp.jvp(f, (x,), (one,))[1],
    "jacfwd": lambda f, x, one: tp.jacfwd(f)(x),
    "hessian": lambda f, x, one: tp.hessian(f)(x),
    "vjp of jvp": lambda f, x, one: tp.vjp(lambda x: tp.jvp(f, (x,), (one,))[1], x)[1](one)[0],
    "jvp of jvp": lambda f, x, one: tp.jvp(lambda x: tp.jvp(f, (x,), (one,))[1], (x,), (one,))[1],
    "jvp of grad": lambda f, x, one: tp.jvp(tp.grad(f), (x,), (one,))[1],
    "linearize": lambda f, x, one: tp.linearize(f, x)[1](one),
    "linearize of grad": lambda f, x, one: tp.linearize(tp.grad(f), x)[1](one),
    "vmap of jvp": lambda f, x, one: tp.vmap(lambda x: tp.jvp(f, (x,), (one,))[1])(x[None])[0],
    "vmap of hessian": lambda f, x, one: tp.vmap(tp.hessian(f))(x[None])[0],
    "program of jvp": lambda f, x, one: tp.make_graph(lambda x: tp.jvp(f, (x,), (one,))[1])(x)(x),
    "program of hessian": lambda f, x, one: tp.make_graph(tp.hessian(f))(x)(x),
}
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 2e-1}


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_derivative_has_the_dtype_of_its_primal(function, name):
    wide = DERIVATIVES[name](FUNCTIONS[function], torch.tensor(0.7, dtype=torch.float64), ONE.double())
    assert wide.dtype == torch.float64
    for dtype, tolerance in TOLERANCES.items():
        got = DERIVATIVES[name](FUNCTIONS[function], torch.tensor(0.7, dtype=dtype), ONE.to(dtype))
        assert got.dtype == dtype
        if dtype == torch.float32 or "torch" not in function:  # torch rounds differences of large terms there
            torch.testing.assert_close(got.double(), wide, rtol=tolerance, atol=tolerance)


def test_a_complex_tangent_has_the_dtype_of_its_primal():
    x = torch.tensor(0.5 + 1j)
    for f in (lambda x: x * 1.5, lambda x: x * 2j + 0.5, lambda x: 1j / x, lambda x: (x.real * 1j + 0.5).exp()):
        value, tangent = tp.jvp(f, (x,), (x,))
        assert tangent.dtype == value.dtype == torch.complex64
    assert tp.jvp(lambda x: x.real * 0.5, (x,), (x,))[1].dtype == torch.float32


def test_a_float64_constant_makes_value_and_tangent_float64():
    value, tangent = tp.jvp(lambda x: x + torch.tensor(1.0, dtype=torch.float64), (ONE,), (ONE,))
    assert value.dtype == tangent.dtype == torch.float64


def test_inside_of_a_function_tangents_have_the_dtypes_of_their_primals():
    seen = []
    rule = tp.custom_jvp(torch.sin)

    @rule.defjvp
    def _(primals, tangents):
        seen.append(tangents[0].dtype)
        return primals[0].sin(), primals[0].cos() * tangents[0]

    tp.jacfwd(lambda x: rule(x.mean() * 0.5 + 1.0))(torch.ones(3))
    carry = tp.scan(lambda c, _: (tp.jvp(lambda z: z * 1.5, (c,), (c,))[1], None), ONE, length=3)[0]
    assert set(seen) == {torch.float32} and carry == 1.5**3


def test_an_error_about_dtypes_stays_the_users():
    with pytest.raises(RuntimeError, match="same dtype|must have the same"):
        tp.jvp(lambda x: W.double() @ x, (torch.ones(2),), (torch.ones(2),))
    with pytest.raises(TransformError, match="wanted a float32 tensor"):
        tp.jvp(lambda x: x, (ONE,), (ONE.double(),))

"""Taylor mode, against JAX's, nested derivatives and closed forms."""

import math

import pytest
import torch
from daily import daily

import torchpure as tp
from torchpure.operators import _taylor

D = torch.float64
X = torch.tensor([0.3, 0.7, 0.45], dtype=D)
SERIES = [torch.tensor([0.2 * k, -0.5, 0.3 + k], dtype=D) for k in range(1, 5)]


def close(got, wanted, tolerance=1e-9):
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def _nested(fn, x, series):
    """Differentiate fn on the curve by nested jvp in t."""

    def on_curve(t):
        return fn(x + sum(part * t**k / math.factorial(k) for k, part in enumerate(series, 1)))

    terms, step = [], on_curve
    for _ in series:
        step = (lambda g: lambda t: tp.jvp(g, (t,), (torch.ones_like(t),))[1])(step)
        terms.append(step(torch.zeros((), dtype=D)))
    return terms


FUNCTIONS = {
    "exp": torch.exp, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "sin": torch.sin, "cos": torch.cos, "log": torch.log,
    "sqrt": torch.sqrt, "reciprocal": torch.reciprocal, "square": torch.square, "softplus": torch.nn.functional.softplus,
    "gelu": torch.nn.functional.gelu, "power": lambda x: x**2.5, "cube": lambda x: x**3, "erf": torch.erf,
    "product": lambda x: x * x.sin(), "matrix": lambda x: torch.outer(x, x.exp()) @ x, "quotient": lambda x: x / (1 + x * x),
    "softmax": lambda x: torch.softmax(x, 0), "norm": lambda x: x.norm(), "prod": lambda x: x.prod(), "affine": lambda x: 2 - x.sum(),
    "constant": lambda x: torch.ones(2, dtype=D), "inner vmap": lambda x: tp.vmap(torch.sin)(x), "layers": lambda x: torch.tanh(torch.outer(x, x) @ x).sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", daily(FUNCTIONS, 2))
def test_jet_is_nested_derivatives_on_the_curve(name):
    fn = FUNCTIONS[name]
    value, terms = tp.jet(fn, (X,), (SERIES,))
    close(value, fn(X))
    close(terms, _nested(fn, X, SERIES))


IN_JAX = ["exp", "tanh", "sin", "cos", "log", "sqrt", "square", "cube", "product", "quotient", "matrix", "affine"]


@pytest.mark.parametrize("name", IN_JAX)
def test_jet_is_that_of_jax(name):
    import jax
    import jax.numpy as jnp
    from jax.experimental.jet import jet

    theirs = {
        "square": jnp.square,
        "cube": lambda x: x**3,
        "product": lambda x: x * jnp.sin(x),
        "quotient": lambda x: x / (1 + x * x),
        "matrix": lambda x: jnp.outer(x, jnp.exp(x)) @ x,
        "affine": lambda x: 2 - x.sum(),
    }
    with jax.enable_x64(True):
        x, series = jnp.array(X.numpy()), [jnp.array(part.numpy()) for part in SERIES]
        value, terms = jet(theirs.get(name) or getattr(jnp, name), (x,), (series,))
        wanted = [torch.tensor(one.tolist(), dtype=D) for one in (value, *terms)]
    got, ours = tp.jet(FUNCTIONS[name], (X,), (SERIES,))
    close([got, *ours], wanted)


def test_jet_of_several_arguments_and_trees():
    def fn(x, y):
        return {"p": x["a"] * y.sin(), "n": 3}

    value, terms = tp.jet(fn, ({"a": X}, X), ([{"a": part} for part in SERIES], [part * 2 for part in SERIES]))
    stacked = torch.cat([X, X])
    both = [torch.cat([part, part * 2]) for part in SERIES]
    close(terms["p"], _nested(lambda z: z[:3] * z[3:].sin(), stacked, both))
    assert value["n"] == 3 and terms["n"] is None


def test_jet_composes():
    along = lambda x: tp.jet(lambda y: torch.tanh(y).prod(), (x,), ([x, x * 0],))[1][1]  # noqa: E731
    plain = lambda x: _nested(lambda y: torch.tanh(y).prod(), x, [x, x * 0])[1]  # noqa: E731
    close(tp.grad(along)(X), tp.grad(plain)(X))
    close(tp.vmap(along)(torch.stack([X, X + 1])), torch.stack([plain(X), plain(X + 1)]))
    close(tp.laplacian(along)(X), tp.hessian(plain)(X).trace())


@pytest.mark.parametrize("order", range(1, 8))
def test_directional_of_any_order(order):
    got = tp.directional(lambda x: torch.sin(2 * x).sum(), torch.ones(3, dtype=D), order=order, with_value=True)(X)
    values = [torch.sin(2 * X + k * math.pi / 2).sum() * 2**k for k in range(order + 1)]
    close(got, (values[0], values[1:]))


def test_series_take_one_pass(monkeypatch):
    calls = []

    def fn(x):
        calls.append(1)
        return torch.tanh(torch.nn.functional.linear(x, torch.outer(X, X))).sum()

    monkeypatch.setattr(_taylor, "nested_series", None)
    tp.jet(fn, (X,), (SERIES,))
    assert calls == [1]

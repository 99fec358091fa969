"""Estimates from random directions: unbiased, exact where they must be, and possible in many dimensions."""

import itertools

import pytest
import torch

import torchpure as tp
from torchpure import operators
from torchpure.operators import _randomised

D = torch.float64
X = torch.tensor([0.3, -0.7, 0.45], dtype=D)


def scalar(x):
    return torch.sin(x[0]) * x[1] ** 3 + torch.exp(x.sum() * x[0])


def field(x):
    return torch.stack([torch.sin(x[1]) * x[0] ** 2, torch.exp(x[0] * x[2]), x.prod()])


LAWS = {
    "hutchinson_laplacian": (operators.hutchinson_laplacian, tp.laplacian, scalar),
    "hutchinson_divergence": (operators.hutchinson_divergence, tp.divergence, field),
    "stde_laplacian": (operators.stde_laplacian, tp.laplacian, scalar),
    "stde_bilaplacian": (operators.stde_bilaplacian, tp.bilaplacian, scalar),
}


@pytest.mark.parametrize("name", LAWS)
def test_law_the_mean_over_keys_is_the_operator(name):
    estimator, operator, fn = LAWS[name]
    keys = tp.random.split(tp.random.key(7), 4000)
    found = tp.vmap(lambda key: estimator(fn, num_samples=2)(X, key=key))(keys)
    error = (found.mean() - operator(fn)(X)).abs()
    assert found.std() > 0 and error < 4 * found.std() / len(keys) ** 0.5


def test_the_mean_over_all_signs_is_the_laplacian(monkeypatch):
    """Each vector of signs is equally likely, so the mean over all is the expected value of a sample."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=D)
    monkeypatch.setattr(_randomised, "_signs", lambda key, point, count: [signs])
    got = operators.hutchinson_laplacian(scalar, num_samples=8)(X, key=tp.random.key(0))
    torch.testing.assert_close(got, tp.laplacian(scalar)(X))


def test_all_coordinates_give_the_laplacian():
    got = operators.stde_laplacian(scalar, num_samples=3)(X, key=tp.random.key(1))
    torch.testing.assert_close(got, tp.laplacian(scalar)(X))


def test_a_hundred_thousand_dimensions():
    x = torch.linspace(0, 1, 100_000, dtype=D)
    exact = -torch.sin(x).sum()
    got = operators.hutchinson_laplacian(lambda x: torch.sin(x).sum(), num_samples=2)(x, key=tp.random.key(0))
    torch.testing.assert_close(got, exact)
    sparse = operators.stde_laplacian(lambda x: torch.sin(x).sum(), num_samples=64)(x, key=tp.random.key(0))
    assert abs(sparse / exact - 1) < 0.3


@pytest.mark.parametrize("name", LAWS)
def test_estimates_compose(name):
    estimator, _, fn = LAWS[name]
    key, aux_fn = tp.random.key(3), lambda params, x: (params * fn(x), {"seen": x})
    run = estimator(aux_fn, num_samples=2, argnums=1, has_aux=True)
    scale = torch.tensor(2.0, dtype=D)
    value, aux = run(scale, X, key=key)
    torch.testing.assert_close(value, 2 * estimator(fn, num_samples=2)(X, key=key))
    torch.testing.assert_close(aux["seen"], X)
    slope = tp.grad(lambda scale: run(scale, X, key=key)[0])(scale)
    torch.testing.assert_close(slope, value / 2)
    many = tp.vmap(lambda x: run(scale, x, key=key)[0])(torch.stack([X, X]))
    torch.testing.assert_close(many, torch.stack([value, value]))


def test_errors_of_estimates():
    with pytest.raises(tp.errors.TransformError, match="num_samples must be an int, at least 1, got 0"):
        operators.stde_laplacian(scalar, num_samples=0)
    with pytest.raises(tp.errors.TransformError, match="num_samples=4 is more than the 3 coordinates"):
        operators.stde_laplacian(scalar, num_samples=4)(X, key=tp.random.key(0))
    with pytest.raises(TypeError, match="key"):
        operators.hutchinson_laplacian(scalar)(X, key=3)

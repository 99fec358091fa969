"""Draws have the right distribution. The keys are fixed, so a failure is reproducible."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

import torchpure as tp
from torchpure import random

N = 20_000
KEY = random.key(2**33 + 7)

CONTINUOUS = {
    "uniform": (lambda k, d: random.uniform(k, (N,), dtype=d), scipy.stats.uniform),
    "uniform of bounds": (lambda k, d: random.uniform(k, (N,), low=-2, high=3, dtype=d), scipy.stats.uniform(-2, 5)),
    "normal": (lambda k, d: random.normal(k, (N,), mean=1.0, std=2.0, dtype=d), scipy.stats.norm(1, 2)),
    "truncated_normal": (lambda k, d: random.truncated_normal(k, (N,), dtype=d), scipy.stats.truncnorm(-2, 2)),
    "truncated_normal of bounds": (
        lambda k, d: random.truncated_normal(k, (N,), low=0, high=5, mean=1, std=2, dtype=d),
        scipy.stats.truncnorm(-0.5, 2, 1, 2),
    ),
    "exponential": (lambda k, d: random.exponential(k, (N,), rate=2.0, dtype=d), scipy.stats.expon(scale=0.5)),
    "gumbel": (lambda k, d: random.gumbel(k, (N,), loc=1.0, scale=2.0, dtype=d), scipy.stats.gumbel_r(1, 2)),
    "laplace": (lambda k, d: random.laplace(k, (N,), loc=1.0, scale=2.0, dtype=d), scipy.stats.laplace(1, 2)),
    "cauchy": (lambda k, d: random.cauchy(k, (N,), loc=1.0, scale=2.0, dtype=d), scipy.stats.cauchy(1, 2)),
    "log_normal": (lambda k, d: random.log_normal(k, (N,), mean=0.5, std=0.7, dtype=d), scipy.stats.lognorm(0.7, 0, math.e**0.5)),
    "gamma": (lambda k, d: random.gamma(k, torch.full((N,), 2.5, dtype=d)), scipy.stats.gamma(2.5)),
    "gamma below one": (lambda k, d: random.gamma(k, torch.full((N,), 0.3, dtype=d)), scipy.stats.gamma(0.3)),
    "dirichlet": (
        lambda k, d: random.dirichlet(k, torch.tensor([1.0, 2.0, 0.5], dtype=d), (N,))[:, 1],
        scipy.stats.beta(2.0, 1.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_kolmogorov_smirnov(name, dtype):
    draw, expected = CONTINUOUS[name]
    x = draw(KEY, dtype)
    assert x.dtype == dtype and x.isfinite().all()
    assert scipy.stats.kstest(x.double().numpy(), expected.cdf).pvalue > 1e-3


def _same_counts(drawn, probabilities):
    counts = torch.bincount(drawn.reshape(-1).long(), minlength=len(probabilities)).double().numpy()
    possible = np.asarray(probabilities) > 0
    assert not counts[~possible].any()
    expected = np.asarray(probabilities)[possible] * counts.sum() / sum(probabilities)
    assert scipy.stats.chisquare(counts[possible], expected).pvalue > 1e-3


P = [0.1, 0.0, 0.6, 0.3]
DISCRETE = {
    "bernoulli": (lambda k: random.bernoulli(k, 0.3, (N,)), [0.7, 0.3]),
    "bernoulli of tensors": (lambda k: random.bernoulli(k, torch.full((N,), 0.3)), [0.7, 0.3]),
    "randint": (lambda k: random.randint(k, (N,), -2, 5) + 2, [1 / 7] * 7),
    "categorical": (lambda k: random.categorical(k, torch.tensor(P).log(), (N,)), P),
    "multinomial": (lambda k: random.multinomial(k, torch.tensor(P) * 5, N, True), P),
    "first without replacement": (
        lambda k: torch.stack([random.multinomial(q, torch.tensor(P), 2)[0] for q in random.split(k, 3000)]),
        P,
    ),
    "choice": (lambda k: random.choice(k, 4, (N,), p=torch.tensor(P)), P),
    "choice of rows": (lambda k: random.choice(k, torch.tensor([0, 2, 3]), (N,)), [1 / 3, 0, 1 / 3, 1 / 3]),
    "place in a permutation": (
        lambda k: torch.stack([random.permutation(q, 5)[2] for q in random.split(k, 3000)]),
        [1 / 5] * 5,
    ),
    "poisson": (lambda k: random.poisson(k, torch.full((N,), 3.0)).clamp(max=9), [*scipy.stats.poisson(3).pmf(range(9)), scipy.stats.poisson(3).sf(8)]),
    "poisson of many": (
        lambda k: (random.poisson(k, torch.full((N,), 1e4, dtype=torch.float64)) > 10_050).long(),
        [scipy.stats.poisson(1e4).cdf(10_050), scipy.stats.poisson(1e4).sf(10_050)],
    ),
    "geometric": (lambda k: random.geometric(k, 0.4, (N,)).clamp(max=8) - 1, [*scipy.stats.geom(0.4).pmf(range(1, 8)), scipy.stats.geom(0.4).sf(7)]),
}  # fmt: skip


@pytest.mark.parametrize("name", DISCRETE)
def test_chi_squared(name):
    draw, probabilities = DISCRETE[name]
    _same_counts(draw(KEY), probabilities)


MANY_KEYS = {
    "split": lambda: random.split(KEY, 2000),
    "fold_in": lambda: torch.stack([random.fold_in(KEY, i) for i in range(2000)]),
    "seeds": lambda: torch.stack([random.key(i) for i in range(2000)]),
    "splits of splits": lambda: torch.cat([random.split(k, 40) for k in random.split(KEY, 50)]),
}


@pytest.mark.parametrize("name", MANY_KEYS)
def test_streams_are_independent(name):
    """Draws are not correlated within a stream or between neighbouring streams; together they are uniform."""
    x = tp.vmap(lambda k: random.uniform(k, (16,), dtype=torch.float64))(MANY_KEYS[name]())
    assert scipy.stats.kstest(x.reshape(-1).numpy(), "uniform").pvalue > 1e-3
    z = (x - 0.5) * math.sqrt(12)
    correlations = torch.cat([(z.T @ z / len(z))[~torch.eye(16, dtype=torch.bool)], (z[:-1] * z[1:]).mean(0)])
    assert correlations.abs().max() < 5 / math.sqrt(len(z))


def test_a_million_folds_are_distinct():
    keys = tp.vmap(lambda i: random.fold_in(KEY, i))(torch.arange(1_000_000))
    joined = keys[:, 0] << 32 | keys[:, 1]
    assert joined.unique().numel() == 1_000_000
    first = tp.vmap(lambda k: random.bits(k, 2))(keys)
    assert (first[:, 0] << 32 | first[:, 1]).unique().numel() == 1_000_000


def test_bits_are_balanced_and_independent_of_their_neighbours():
    words = random.bits(KEY, 100_000)
    ones = torch.stack([(words >> place) & 1 for place in range(32)]).double()
    assert (ones.mean(1) - 0.5).abs().max() < 4 / math.sqrt(4 * 100_000)
    assert ((ones[:, 1:] - 0.5) * (ones[:, :-1] - 0.5)).mean(1).abs().max() < 4 * 0.25 / math.sqrt(100_000)


def test_gradients_of_reparametrised_draws():
    def mean(a, b):
        drawn = random.gamma(KEY, a.expand(N)) / b
        return drawn.mean() + random.normal(KEY, (N,), mean=a, std=b, dtype=torch.float64).mean()

    a, b = torch.tensor(2.0, dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64)
    slopes = tp.grad(mean, argnums=(0, 1))(a, b)
    assert abs(slopes[0] - (1 / 4 + 1)) < 0.02 and abs(slopes[1] + 2 / 16) < 0.03  # E a/b + a
    forwards = tp.jvp(lambda a: random.gamma(KEY, a), (torch.tensor([0.4, 1.7]).double(),), (torch.ones(2).double(),))
    backwards = tp.jacrev(lambda a: random.gamma(KEY, a))(torch.tensor([0.4, 1.7]).double())
    torch.testing.assert_close(forwards[1], backwards.diagonal())


KEYED_ERRORS = {
    "low and high": (lambda: random.randint(KEY, (3,), 5, 5), ValueError, "randint: wanted low < high, got 5 and 5"),
    "range": (lambda: random.randint(KEY, (3,), 0, 300, dtype=torch.uint8), ValueError, "does not fit in torch.uint8"),
    "dtype": (lambda: random.randint(KEY, (3,), 0, 3, dtype=torch.float32), TypeError, "wanted an integer dtype"),
    "p": (lambda: random.bernoulli(KEY, 1.5), ValueError, r"bernoulli: p must be in \[0, 1\], got 1.5"),
    "geometric": (lambda: random.geometric(KEY, 0.0), ValueError, r"geometric: p must be in \(0, 1\], got 0.0"),
    "logits": (lambda: random.categorical(KEY, torch.tensor([1, 2])), TypeError, "wanted logits of a floating point"),
    "shape of logits": (
        lambda: random.categorical(KEY, torch.zeros(3, 2), (4,)),
        ValueError,
        r"the shape must end with \(3,\), that of the logits without dim, got \(4,\)",
    ),
    "weights": (
        lambda: random.multinomial(KEY, torch.ones(3), 4),
        ValueError,
        "cannot draw 4 of 3 without replacement",
    ),
    "choices": (lambda: random.choice(KEY, 3, (4,), replace=False), ValueError, "choice: cannot draw 4 of 3 without"),
    "chances": (lambda: random.choice(KEY, 3, p=torch.ones(2)), ValueError, r"p must have shape \(3,\)"),
    "permutation": (lambda: random.permutation(KEY, -1), ValueError, "must be at least 0, got -1"),
    "rows": (lambda: random.permutation(KEY, torch.tensor(1)), ValueError, "wanted a tensor with rows"),
    "split": (lambda: random.split(KEY, -1), ValueError, "split: the number of keys must be at least 0, got -1"),
    "truncation": (lambda: random.truncated_normal(KEY, low=2, high=1), ValueError, "wanted low < high and std > 0"),
    "rate": (lambda: random.poisson(KEY, -1.0), ValueError, "poisson: the rate must be at least 0, got -1.0"),
    "concentration": (lambda: random.gamma(KEY, 0.0), ValueError, "gamma: the concentration must be greater than 0"),
    "float": (lambda: random.normal(KEY, (2,), dtype=torch.int64), TypeError, "normal: wanted a floating point dtype"),
    "shape": (lambda: random.uniform(KEY, 3), TypeError, "uniform: the shape must be a tuple of integers, got 3"),
}


@pytest.mark.parametrize("name", KEYED_ERRORS)
def test_error_messages(name):
    call, error, message = KEYED_ERRORS[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_draws_are_rounded_single_precision_draws(dtype):
    for draw in (random.uniform, random.normal, random.exponential, random.gumbel):
        x = draw(KEY, (5000,), dtype=dtype)
        assert x.dtype == dtype and x.isfinite().all()
    assert random.uniform(KEY, (5000,), dtype=dtype).max() < 1
    assert random.gamma(KEY, torch.ones(50, dtype=dtype)).dtype == dtype

"""Means of estimates over many fixed keys against closed forms, by standard errors; and their variances."""

import pytest
import torch

import torchpure as tp
from torchpure import estimators as es

NUM_KEYS = 4000
MEAN = torch.tensor([0.5, -1.0, 1.5], dtype=torch.float64)
MATRIX = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 3.0]], dtype=torch.float64)
LOGITS = torch.tensor([0.2, -0.4, 1.0], dtype=torch.float64)
COSTS = torch.tensor([1.0, 3.0, -2.0], dtype=torch.float64)


def moments(estimate, *args, num_keys=NUM_KEYS):
    """Return the mean over keys, its standard error, and the total variance of one estimate."""
    keys = tp.random.split(tp.random.key(7), num_keys)
    draws = tp.vmap(lambda key: tp.tree.ravel(estimate(*args, key=key))[0])(keys)
    return draws.mean(0), draws.std(0) / num_keys**0.5, draws.var(0).sum().item()


def assert_unbiased(estimate, exact, *args, num_keys=NUM_KEYS):
    mean, error, variance = moments(estimate, *args, num_keys=num_keys)
    exact = tp.tree.ravel(exact)[0]
    assert ((mean - exact).abs() <= 4.5 * error + 1e-9).all(), f"mean {mean}, exact {exact}, error {error}"
    return variance


def quadratic(x):
    return x @ MATRIX @ x / 2


def shifted(mean, z):
    return mean + z


def normal(key):
    return tp.random.normal(key, (3,), dtype=torch.float64)


def log_normal_density(mean, x):
    return -((x - mean) ** 2).sum() / 2


def category(logits, key):
    return tp.random.categorical(key, logits)


def log_category(logits, index):
    return logits.log_softmax(-1)[index]


def score(**options):
    return es.score_function(quadratic, lambda mean, key: shifted(mean, normal(key)), log_normal_density, 8, **options)


# each estimates the gradient of E[quadratic(MEAN + z)], which is MATRIX @ MEAN
GRADIENTS = {
    "score function": tp.grad(score(baseline=None)),
    "score function, a number": tp.grad(score(baseline=4.0)),
    "score function, leave one out": tp.grad(score()),
    "pathwise": tp.grad(es.pathwise(quadratic, shifted, normal, 8)),
    "antithetic": tp.grad(es.antithetic(quadratic, shifted, normal, 4)),
    "control variate": tp.grad(
        es.control_variate(
            score(),
            es.score_function(
                lambda x: (x**2).sum(), lambda mean, key: shifted(mean, normal(key)), log_normal_density, 8
            ),
            lambda mean: (mean**2).sum() + 3,
        )
    ),
    "forward difference": es.forward_difference(quadratic, 1.0, 8),
    "central difference": es.central_difference(quadratic, 1.0, 4),
    "two point": es.two_point(quadratic, 1.0, 4),
    "spsa": es.spsa(quadratic, 1.0, 4),
    "evolution strategy": es.evolution_strategy(quadratic, 1.0, 4),
}


@pytest.fixture(scope="module")
def variances():
    return {name: assert_unbiased(estimate, MATRIX @ MEAN, MEAN) for name, estimate in GRADIENTS.items()}


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_mean_over_keys_is_the_gradient(variances, name):
    print(f"{name}: variance {variances[name]:.3f} with eight values")
    assert variances[name] >= 0


def test_what_lowers_the_variance(variances):
    """The order that the theory gives for this quadratic function, with a wide margin."""
    assert 1.5 * variances["score function, leave one out"] < variances["score function"]
    assert 1.2 * variances["control variate"] < variances["score function, leave one out"]
    assert 1.5 * variances["pathwise"] < variances["control variate"]
    assert variances["antithetic"] < 1e-20  # the gradient is linear in the noise
    of_eight_pairs = variances["central difference"] / 2
    assert 1.5 * of_eight_pairs < variances["forward difference"]  # as many directions, twice the values
    assert 1.2 * variances["two point"] < variances["central difference"]
    assert 1.2 * variances["spsa"] < variances["central difference"]


def test_values_are_unbiased_too():
    exact = quadratic(MEAN) + MATRIX.trace() / 2
    for estimate in (score(), es.pathwise(quadratic, shifted, normal, 8), es.antithetic(quadratic, shifted, normal, 4)):
        assert_unbiased(estimate, exact, MEAN)


def test_the_score_function_of_a_discrete_variable_has_every_derivative():
    estimate = es.score_function(lambda index: COSTS[index], category, log_category, 8)
    expected = lambda logits: logits.softmax(-1) @ COSTS  # noqa: E731
    assert_unbiased(estimate, expected(LOGITS), LOGITS)
    assert_unbiased(tp.grad(estimate), tp.grad(expected)(LOGITS), LOGITS)
    assert_unbiased(tp.hessian(estimate), tp.hessian(expected)(LOGITS), LOGITS, num_keys=1000)


@pytest.mark.parametrize("noise", ["gumbel", "normal"])
def test_the_perturbed_argmax_is_smooth(noise):
    argmax = lambda s: torch.nn.functional.one_hot(s.argmax(-1), s.shape[-1]).double()  # noqa: E731
    estimate = es.perturbed(argmax, 0.7, 8, noise=noise)
    if noise == "gumbel":
        scores, expected = LOGITS, lambda scores: (scores / 0.7).softmax(-1)
    else:  # two classes: the difference of the noise is normal with variance 2 · 0.7²
        scores = LOGITS[:2]
        expected = lambda s: torch.special.ndtr((s - s.flip(0)) / (0.7 * 2**0.5))  # noqa: E731
    assert_unbiased(estimate, expected(scores), scores)
    assert_unbiased(tp.jacrev(estimate), tp.jacrev(expected)(scores), scores)
    assert_unbiased(tp.jacfwd(estimate), tp.jacrev(expected)(scores), scores, num_keys=1000)
    second = tp.jacfwd(tp.jacrev(expected))(scores)
    assert_unbiased(tp.jacfwd(tp.jacrev(estimate)), second, scores, num_keys=1000)


def test_the_fenchel_young_loss_of_the_gumbel_argmax_is_the_cross_entropy():
    argmax = lambda s: torch.nn.functional.one_hot(s.argmax(-1), 3).double()  # noqa: E731
    loss = es.fenchel_young_loss(argmax, 1.0, 8, noise="gumbel")
    target = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    entropy = lambda scores: scores.logsumexp(0) - (target * scores).sum()  # noqa: E731
    euler = 0.5772156649015329  # the mean of Gumbel noise
    assert_unbiased(loss, entropy(LOGITS) + euler, LOGITS, target)
    assert_unbiased(tp.grad(loss), tp.grad(entropy)(LOGITS), LOGITS, target)
    assert_unbiased(tp.hessian(loss), tp.hessian(entropy)(LOGITS), LOGITS, target)


def test_the_sum_of_persistent_estimates_is_the_gradient_of_the_whole_run():
    """The loss of the run is quadratic in the parameter, so that smoothing does not change its gradient."""
    pieces, start = 4, torch.tensor(1.0, dtype=torch.float64)
    piece = lambda drift, x: ((0.8 * x + drift) ** 2, 0.8 * x + drift)  # noqa: E731
    drift = torch.tensor(0.3, dtype=torch.float64)

    def run(drift):
        x, total = start, 0.0
        for _ in range(pieces):
            loss, x = piece(drift, x)
            total = total + loss
        return total

    def persistent(drift, *, key):
        pes = es.persistent_es(piece, 0.3, 4)
        state, total = pes.init(drift, start), 0.0
        for one in tp.random.split(key, pieces).unbind(0):
            grads, state, _ = pes.estimate(drift, state, key=one)
            total = total + grads
        return total

    def truncated(drift, *, key):
        total, x = 0.0, start
        for one in tp.random.split(key, pieces).unbind(0):
            total = total + es.evolution_strategy(lambda drift, x=x: piece(drift, x)[0], 0.3, 4)(drift, key=one)
            x = piece(drift, x)[1]
        return total

    exact = tp.grad(run)(drift)
    assert_unbiased(persistent, exact, drift)
    mean, error, _ = moments(truncated, drift)
    assert (mean - exact).abs() > 50 * error  # truncation is biased: what persistence is for


def test_a_gumbel_one_hot_sample_is_exact():
    mean, error, _ = moments(lambda logits, key: es.gumbel_one_hot(logits, 0.5, key=key), LOGITS)
    assert ((mean - LOGITS.softmax(-1)).abs() <= 4.5 * error).all()
    key = tp.random.key(3)
    soft, hard = es.gumbel_softmax(LOGITS, 0.5, key=key), es.gumbel_one_hot(LOGITS, 0.5, key=key)
    assert torch.equal(hard, torch.nn.functional.one_hot(soft.argmax(), 3).double())
    jacobians = [tp.jacrev(lambda x, f=f: f(x, 0.5, key=key))(LOGITS) for f in (es.gumbel_softmax, es.gumbel_one_hot)]
    torch.testing.assert_close(*jacobians)

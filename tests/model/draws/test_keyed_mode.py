"""Draws of unmodified modules, answered from a key."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import torchpure as tp
from torchpure import random
from torchpure.errors import ImpureError
from torchpure.testing import assert_trees_close_to_rounding


class Calls(nn.Module):
    """Applies a function to its input."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x)


def run(fn, x, seed=0):
    return tp.functional(Calls(fn)).apply({}, {}, x, key=random.key(seed))[0]


ONES = torch.ones(200, 100)
P = 0.3


def test_dropout_keeps_its_rate_and_mean():
    for fn in (
        lambda x: F.dropout(x, P),
        lambda x: torch.dropout(x, P, True),
        lambda x: F.dropout(x * 1, P, inplace=True),
    ):
        y = run(fn, ONES)
        assert set(y.unique().tolist()) == {0.0, (ONES / (1 - P))[0, 0].item()}
        assert abs((y == 0).float().mean() - P) < 4 * math.sqrt(P * (1 - P) / ONES.numel())
    assert torch.equal(run(lambda x: F.dropout(x, 1.0), ONES), torch.zeros_like(ONES))
    assert torch.equal(run(lambda x: F.dropout(x, 0.0), ONES), ONES)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 1.5"):
        run(lambda x: F.dropout(x, 1.5), ONES)


CHANNELS = {
    "dropout1d": (F.dropout1d, (40, 50, 6), (2,)),
    "dropout1d of one": (F.dropout1d, (2000, 6), (1,)),
    "dropout2d": (F.dropout2d, (40, 50, 3, 2), (2, 3)),
    "dropout3d": (F.dropout3d, (40, 50, 3, 2, 2), (2, 3, 4)),
    "dropout3d of one": (F.dropout3d, (2000, 3, 2, 2), (1, 2, 3)),
    "feature_dropout": (torch.feature_dropout, (40, 50, 6), (2,)),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_whole_channels_are_dropped(name):
    fn, shape, spatial = CHANNELS[name]
    y = run(lambda x: fn(x, P, True), torch.ones(shape))
    dropped = y == 0
    assert torch.equal(dropped.all(spatial), dropped.any(spatial))
    share = dropped.all(spatial).float()
    assert abs(share.mean() - P) < 4 * math.sqrt(P * (1 - P) / share.numel())


@pytest.mark.parametrize("fn", [F.alpha_dropout, F.feature_alpha_dropout])
def test_alpha_dropout_keeps_mean_and_variance(fn):
    x = random.normal(random.key(5), (400, 200))
    y = run(lambda x: fn(x, P, True), x)
    assert abs(y.mean() - x.mean()) < 0.02 and abs(y.std() - x.std()) < 0.02
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = fn(torch.ones(100, 100), P, True).unique()
    torch.testing.assert_close(run(lambda x: fn(x, P, True), torch.ones(100, 100)).unique(), theirs)


def test_random_relu_slopes():
    y = run(lambda x: F.rrelu(x, 0.2, 0.4, True), -ONES)
    assert -0.4 <= y.min() < -0.39 and -0.21 < y.max() <= -0.2 and abs(y.mean() + 0.3) < 0.002
    assert torch.equal(run(lambda x: F.rrelu(x, 0.2, 0.4, True), ONES), ONES)
    torch.testing.assert_close(run(lambda x: F.rrelu(x, 0.2, 0.4, False), -ONES), -0.3 * ONES)


def test_attention_drops_weights():
    q = torch.zeros(1, 1, 50, 4)
    v = torch.eye(50).reshape(1, 1, 50, 50)
    weights = run(lambda q: F.scaled_dot_product_attention(q, q, v, dropout_p=P), q)
    kept = weights[weights != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 50 / (1 - P)))
    assert abs((weights == 0).float().mean() - P) < 4 * math.sqrt(P * (1 - P) / 2500)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_dropout_is_between_layers_only(kind, packed):
    torch.manual_seed(0)
    module, x = kind(4, 3, 2, dropout=0.5).double(), random.normal(random.key(0), (5, 2, 4), dtype=torch.float64)
    data = pack_padded_sequence(x, [5, 3]) if packed else x
    net = tp.functional(module)
    one, _ = net.apply(net.params, {}, data, key=random.key(0))
    two, _ = net.apply(net.params, {}, data, key=random.key(1))
    first = [one[1], two[1]] if kind is not nn.LSTM else [one[1][0], two[1][0]]
    assert torch.equal(first[0][0], first[1][0]) and not torch.equal(first[0][1], first[1][1])
    still, _ = net.apply(net.params, {}, data, train=False)
    expected = module.eval()(data)
    torch.testing.assert_close(still[1], expected[1], rtol=0, atol=0)


SAMPLERS = {
    "rand": (lambda: torch.rand(100, 100), 1 / 2, 1 / 12),
    "rand of sizes": (lambda: torch.rand(size=(100, 100), dtype=torch.float64), 1 / 2, 1 / 12),
    "randn": (lambda: torch.randn((100, 100)), 0, 1),
    "rand_like": (lambda: torch.rand_like(ONES), 1 / 2, 1 / 12),
    "randn_like": (lambda: torch.randn_like(ONES), 0, 1),
    "randint": (lambda: torch.randint(10, (100, 100)), 4.5, 99 / 12),
    "randint of bounds": (lambda: torch.randint(-5, 5, (100, 100)), -0.5, 99 / 12),
    "randint of names": (lambda: torch.randint(low=0, high=10, size=(100, 100)), 4.5, 99 / 12),
    "randint_like": (lambda: torch.randint_like(ONES, 2, 12), 6.5, 99 / 12),
    "normal": (lambda: torch.normal(2.0, 3.0, (100, 100)), 2, 9),
    "normal of tensors": (lambda: torch.normal(2 * ONES, 3 * ONES), 2, 9),
    "bernoulli": (lambda: torch.bernoulli(0.3 * ONES), 0.3, 0.21),
    "bernoulli of p": (lambda: torch.bernoulli(ONES, 0.3), 0.3, 0.21),
    "poisson": (lambda: torch.poisson(4 * ONES), 4, 4),
    "multinomial": (lambda: torch.multinomial(torch.tensor([1.0, 0, 3]), 10_000, True), 1.5, 0.75),
    "uniform_": (lambda: torch.empty(100, 100).uniform_(-1, 3), 1, 16 / 12),
    "normal_": (lambda: torch.empty(100, 100).normal_(2, 3), 2, 9),
    "bernoulli_": (lambda: torch.empty(100, 100).bernoulli_(0.3), 0.3, 0.21),
    "exponential_": (lambda: torch.empty(100, 100).exponential_(2), 1 / 2, 1 / 4),
    "geometric_": (lambda: torch.empty(100, 100).geometric_(0.4), 2.5, 3.75),
    "log_normal_": (lambda: torch.empty(200, 200).log_normal_(0, 0.5).log(), 0, 0.25),
    "cauchy_": (lambda: torch.empty(100, 100).cauchy_(2, 3).sub(2).div(3).atan(), 0, math.pi**2 / 12),
    "random_": (lambda: torch.empty(100, 100).random_(2, 12), 6.5, 99 / 12),
    "random_ to": (lambda: torch.empty(100, 100, dtype=torch.int64).random_(10), 4.5, 99 / 12),
    "trunc_normal_": (lambda: nn.init.trunc_normal_(torch.empty(100, 100), 1.0, 2.0, -100, 100), 1, 4),
    "xavier_normal_": (lambda: nn.init.xavier_normal_(torch.empty(100, 100)), 0, 1 / 100),
    "distributions.Normal": (lambda: torch.distributions.Normal(2.0, 3.0).sample((100, 100)), 2, 9),
    "distributions.Gamma": (lambda: torch.distributions.Gamma(2.0, 4.0).sample((100, 100)), 1 / 2, 1 / 8),
    "distributions.Beta": (lambda: torch.distributions.Beta(2.0, 2.0).sample((100, 100)), 1 / 2, 1 / 20),
    "distributions.Exponential": (lambda: torch.distributions.Exponential(2.0).sample((100, 100)), 1 / 2, 1 / 4),
    "distributions.Laplace": (lambda: torch.distributions.Laplace(1.0, 2.0).sample((100, 100)), 1, 8),
    "distributions.Poisson": (lambda: torch.distributions.Poisson(4.0).sample((100, 100)), 4, 4),
    "distributions.Categorical": (
        lambda: torch.distributions.Categorical(torch.tensor([0.25, 0.0, 0.75])).sample((100, 100)),
        1.5,
        0.75,
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_have_the_right_moments(name):
    fn, mean, variance = SAMPLERS[name]
    x = run(lambda _: fn(), ONES)
    expected = torch.random.fork_rng(devices=[])
    with expected:
        theirs = fn()
    assert (x.dtype, x.shape) == (theirs.dtype, theirs.shape)
    x = x.double()
    error = math.sqrt(variance / x.numel())
    assert abs(x.mean() - mean) < 4 * error
    assert abs(x.var() - variance) < 0.1 * variance
    assert torch.equal(run(lambda _: fn(), ONES).double(), x)
    assert not torch.equal(run(lambda _: fn(), ONES, seed=1).double(), x)


def test_permutations_and_multinomial_draws():
    assert torch.equal(run(lambda _: torch.randperm(10), ONES).sort().values, torch.arange(10))
    chosen = run(lambda _: torch.multinomial(torch.tensor([[1.0, 2, 0, 3], [0, 1, 1, 1]]), 3), ONES)
    assert torch.equal(chosen.sort().values, torch.tensor([[0, 1, 3], [1, 2, 3]]))
    assert run(lambda _: torch.empty(1000, dtype=torch.bool).random_(), ONES).float().mean().sub(0.5).abs() < 0.1
    assert run(lambda _: torch.empty(1000, dtype=torch.float16).random_(), ONES).max() <= 2**11
    soft = run(lambda x: F.gumbel_softmax(x[:, :4].log_softmax(-1), hard=True), ONES)
    assert_trees_close_to_rounding(soft.sum(1), torch.ones(200))
    assert 20 < soft[:, 0].sum() < 80
    drawn = run(lambda _: torch.distributions.Dirichlet(torch.ones(3)).sample((50,)), ONES)
    torch.testing.assert_close(drawn.sum(-1), torch.ones(50))


def test_complex_draws():
    for fn in (
        lambda _: torch.randn(100, 100, dtype=torch.cfloat),
        lambda _: torch.empty(100, 100).to(torch.cfloat).normal_(),
    ):
        z = run(fn, ONES)
        assert z.is_complex() and abs(z.real.var() - 0.5) < 0.05 and abs(z.imag.var() - 0.5) < 0.05
    z = run(lambda _: torch.rand(100, 100, dtype=torch.cfloat), ONES)
    assert abs(z.real.mean() - 0.5) < 0.02 and abs(z.imag.mean() - 0.5) < 0.02


REFUSED = {
    "binomial": (lambda x: torch.binomial(x, x / 2), "`binomial` needs a key. The key that was given cannot answer it"),
    "out": (lambda x: torch.rand(2, out=torch.empty(2)), r"`rand\(out=…\)` needs a key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_draw_without_a_keyed_version_is_an_error(name):
    fn, message = REFUSED[name]
    before = torch.get_rng_state()
    with pytest.raises(ImpureError, match=message):
        run(fn, ONES)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_module_that_holds_a_generator_is_refused():
    module = Calls(torch.tanh)
    module.generator = torch.Generator()
    with pytest.raises(ImpureError, match="`generator` is a generator, which every draw changes"):
        tp.functional(module)


def test_a_bad_key_is_refused():
    net = tp.functional(nn.Dropout())
    with pytest.raises(TypeError, match="apply: wanted a key, as random.key"):
        net.apply({}, {}, ONES, key=3)
    with pytest.raises(TypeError, match="shape \\(3, 2\\): map over several keys with vmap"):
        net.apply({}, {}, ONES, key=random.split(random.key(0), 3))
    with pytest.raises(TypeError, match="train must be True, False or None, got 'yes'"):
        net.apply({}, {}, ONES, key=random.key(0), train="yes")


def test_draws_of_one_call_differ():
    x, y = run(lambda x: torch.stack([torch.rand(5), torch.rand(5)]), ONES)
    assert not torch.equal(x, y)


def test_law_a_batch_of_keys_gives_each_member_its_own():
    net = tp.functional(nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.RReLU()))
    x, keys = torch.ones(4, 3), random.split(random.key(0), 5)
    together, _ = tp.vmap(lambda key: net.apply(net.params, {}, x, key=key))(keys)
    for i, key in enumerate(keys):
        torch.testing.assert_close(together[i], net.apply(net.params, {}, x, key=key)[0], rtol=1e-6, atol=0)
    shared, _ = tp.vmap(lambda x: net.apply(net.params, {}, x, key=keys[0]))(torch.stack([x, x]))
    assert_trees_close_to_rounding(shared[0], shared[1])


def test_train_sets_the_mode_of_one_call():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
    net, x = tp.functional(module), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    y, state = net.apply(net.params, net.state, x, train=False)
    torch.testing.assert_close(y, module.eval()(x).detach(), rtol=0, atol=0)
    assert torch.equal(state["1.running_mean"], net.state["1.running_mean"])
    y, state = net.apply(net.params, net.state, x, key=random.key(0), train=True)
    assert (y == 0).any() and not torch.equal(state["1.running_mean"], net.state["1.running_mean"])
    assert torch.equal(net.apply(net.params, net.state, x, key=random.key(0))[0], y)
    evaluating = tp.functional(module.eval())
    assert torch.equal(evaluating.apply(net.params, net.state, x, key=random.key(0), train=True)[0], y)
    assert not module.training


def test_an_input_that_is_changed_in_place_is_an_error():
    net = tp.functional(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3)))
    for call in (net, lambda p, x: net.apply(p, {}, x), lambda p, x: tp.grad(lambda q: net(q, x).sum())(p)):
        with pytest.raises(ImpureError, match="Sequential changes its input 0 in place"):
            call(net.params, -torch.ones(2, 3))


@pytest.mark.compile
def test_keyed_calls_compile_to_one_graph():
    net = tp.functional(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)))
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(params, state, key):
        return net.apply(params, state, x, key=key)

    for seed in range(2):
        key = random.key(seed)
        y, state = step(net.params, net.state, key)
        expected, after = net.apply(net.params, net.state, x, key=key)
        torch.testing.assert_close((y, state), (expected, after))
    assert torch.equal(net.state["1.running_mean"], torch.zeros(3))

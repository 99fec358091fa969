"""Factories, and modules that are lazy, on the meta device, of mixed precision, or compiled."""

import warnings
from itertools import pairwise

import pytest
import scipy.stats
import torch
from torch import nn

import torchpure as tp
from torchpure import random
from torchpure.errors import ImpureError, ParameterError

X = torch.linspace(-1, 1, 12).reshape(4, 3)


class SimpleNN(nn.Module):
    """The article's network."""

    def __init__(self, num_layers=1, num_inputs=1, num_hidden=5, num_outputs=1):
        super().__init__()
        sizes = [num_inputs, *[num_hidden] * num_layers]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
        self.net = nn.Sequential(*layers, nn.Linear(num_hidden, num_outputs))

    def forward(self, x):
        return self.net(x)


def test_a_factory_is_called_with_its_arguments():
    before = torch.get_rng_state()
    net = tp.functional(SimpleNN, num_layers=2)
    assert net.params["net.2.weight"].shape == (5, 5)
    params, _ = net.init(random.key(0))
    assert all(torch.equal(params[name], net.params[name]) for name in params)  # made with that key
    assert not torch.equal(net.init(random.key(1))[0]["net.0.weight"], params["net.0.weight"])
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(TypeError, match="arguments are for a factory, but SimpleNN is a module already"):
        tp.functional(SimpleNN(), num_layers=2)


def test_a_factory_must_make_the_same_module_each_time():
    widths = iter([3, 4])
    net = tp.functional(lambda: nn.Linear(2, next(widths)))
    with pytest.raises(ParameterError, match=r"Linear: parameters: `weight` wants shape \(3, 2\)"):
        net.init(random.key(0))


INITS = {
    "module": lambda: nn.Sequential(nn.Linear(50, 60), nn.Conv1d(4, 30, 5), nn.Embedding(90, 20)),
    "own": lambda: _custom_init(),
}


def _custom_init():
    module = nn.Sequential(nn.Linear(50, 60), nn.Linear(60, 50))
    nn.init.orthogonal_(module[0].weight)
    nn.init.trunc_normal_(module[1].weight, std=0.1)
    nn.init.kaiming_normal_(module[1].weight[:10])
    return module


@pytest.mark.parametrize("factory", [True, False])
@pytest.mark.parametrize("name", INITS)
def test_law_init_has_the_distribution_of_torchs_constructor(name, factory):
    make = INITS[name]
    if name == "own" and not factory:
        pytest.skip("a module does not know what its maker did")
    net = tp.functional(make if factory else make())
    ours, _ = tp.vmap(net.init)(random.split(random.key(0), 4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [dict(make().named_parameters()) for _ in range(4)]
    for path, values in ours.items():
        expected = torch.stack([one[path].detach() for one in theirs])
        if expected.unique().numel() > 1:
            assert scipy.stats.ks_2samp(values.reshape(-1), expected.reshape(-1)).pvalue > 1e-3
        else:
            assert torch.equal(values, expected)


def test_lazy_modules_need_an_example_call():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.LazyLinear(2)
    with pytest.raises(ParameterError, match="`weight` has no shape yet: call the module once on an example input"):
        tp.functional(module)
    module(X)
    net = tp.functional(module)
    assert net(net.params, X).shape == (4, 2)


def test_meta_modules_take_real_parameters():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net = tp.functional(module)
    assert net.params["0.weight"].is_meta
    params, state = net.init(random.key(0))
    assert not any(leaf.is_meta for leaf in tp.tree.leaves((params, state)))
    twin = tp.functional(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    expected, expected_state = twin.init(random.key(0))
    assert all(torch.equal(params[name], expected[name]) for name in params)
    assert torch.equal(net.apply(params, state, X)[0], twin.apply(expected, expected_state, X)[0])
    assert all(torch.equal(state[name], expected_state[name]) for name in state)


def test_a_meta_buffer_that_nothing_refills_is_an_error():
    with torch.device("meta"):
        module = nn.Linear(2, 2)
        module.register_buffer("mean", torch.zeros(2))
    with pytest.raises(ImpureError, match="init: nothing refills `mean` of Linear"):
        tp.functional(module).init(random.key(0))


def test_autocast_with_keys_under_transforms():
    net = tp.functional(nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.4), nn.Linear(8, 2)))
    keys = random.split(random.key(0), 3)

    def loss(params, key):
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = net.apply(params, {}, X, key=key)
        assert y.dtype == torch.bfloat16
        return y.float().square().sum()

    together = tp.vmap(tp.grad(loss), (None, 0))(net.params, keys)
    for i, key in enumerate(keys):
        alone = tp.grad(loss)(net.params, key)
        assert all(alone[name].dtype == torch.float32 for name in alone)
        for name in alone:
            torch.testing.assert_close(together[name][i], alone[name], rtol=0.1, atol=0.02)


def test_mixed_precision_state():
    module = nn.Sequential(nn.Linear(3, 4).to(torch.bfloat16), nn.BatchNorm1d(4))
    for momentum in (0.1, None):
        module[1].momentum = momentum
        net = tp.functional(module)
        y, state = net.apply(net.params, net.state, X.to(torch.bfloat16))
        assert y.dtype == torch.bfloat16 and state["1.running_mean"].dtype == torch.float32
        assert state["1.running_mean"].abs().sum() > 0 and state["1.num_batches_tracked"] == 1


@pytest.mark.compile
def test_a_model_with_state_and_draws_compiles():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None), nn.Dropout(0.3))
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            y = self.layers(x)
            self.calls = self.calls + 1
            self.mean.lerp_(y.detach().mean(0), 0.1)
            return y

    net = tp.functional(Model())
    compiled = torch.compile(lambda p, s, k: net.apply(p, s, X, key=k), fullgraph=True, backend="aot_eager")
    for seed in range(2):
        got = compiled(net.params, net.state, random.key(seed))
        torch.testing.assert_close(got, net.apply(net.params, net.state, X, key=random.key(seed)))
    assert net.state["calls"] == 0
    with pytest.raises(torch._dynamo.exc.Unsupported, match="exception"):  # torch.compile hides the original error
        torch.compile(lambda p, s: net.apply(p, s, X), fullgraph=True, backend="eager")(net.params, net.state)

"""Initial values drawn from a key, with the distributions of torch."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import torchpure as tp
from torchpure import random
from torchpure.errors import ImpureError

MODULES = {
    "linear": lambda: nn.Linear(200, 300),
    "conv": lambda: nn.Conv2d(8, 64, 5),
    "transposed conv": lambda: nn.ConvTranspose1d(32, 64, 5),
    "bilinear": lambda: nn.Bilinear(20, 30, 40),
    "lstm": lambda: nn.LSTM(40, 50, 2),
    "gru cell": lambda: nn.GRUCell(40, 50),
    "attention": lambda: nn.MultiheadAttention(64, 4, kdim=32, vdim=16, add_bias_kv=True),
    "transformer": lambda: nn.Transformer(64, 4, 1, 1, 128, batch_first=True),
    "embedding": lambda: nn.Embedding(300, 40, padding_idx=0),
    "norms": lambda: nn.Sequential(nn.BatchNorm1d(30), nn.LayerNorm(30), nn.GroupNorm(2, 8), nn.RMSNorm(9)),
    "prelu": lambda: nn.PReLU(5),
    "double": lambda: nn.Linear(200, 300).double(),
}


@pytest.mark.parametrize("name", MODULES)
def test_values_have_torchs_distributions(name):
    make = MODULES[name]
    before = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, others = make(), [make() for _ in range(2)]
    net = tp.functional(module)
    params, state = net.init(random.key(1))
    assert torch.equal(torch.get_rng_state(), before)
    for path, value in params.items():
        theirs = torch.stack([dict(one.named_parameters())[path].detach() for one in others])
        assert value.dtype == theirs.dtype and not value.requires_grad
        if theirs.std() == 0:  # torch sets a constant here
            assert torch.equal(value, theirs[0])
        else:
            assert not torch.equal(value, theirs[0])
            error = 5 * theirs.std() / math.sqrt(value.numel())
            assert abs(value.mean() - theirs.mean()) < 2 * error
            assert abs(value.std() - theirs.std()) < error
            assert value.abs().max() < 1.3 * theirs.abs().max()
    for path, value in state.items():
        assert torch.equal(value, net.state[path])


def test_one_key_gives_the_same_values_and_layers_differ():
    net = tp.functional(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    (one, _), (two, _), (other, _) = (net.init(random.key(seed)) for seed in (1, 1, 2))
    tp.tree.check_same(one, net.params)
    assert all(torch.equal(one[name], two[name]) and not torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["0.weight"], one["1.weight"])
    with torch.no_grad():
        one["0.weight"].zero_()  # the result is no view of the net's values
    assert torch.equal(net.init(random.key(1))[0]["0.weight"], two["0.weight"])
    assert not torch.equal(net.params["0.weight"], two["0.weight"])


def test_law_vmap_of_init_equals_init():
    net = tp.functional(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Embedding(5, 2, padding_idx=1)))
    keys = random.split(random.key(0), 3)
    params, state = tp.vmap(net.init)(keys)
    for number, key in enumerate(keys):
        one, own = net.init(key)
        assert all(torch.equal(params[name][number], one[name]) for name in one)
        assert all(torch.equal(state[name][number], own[name]) for name in own)


class Custom(nn.Module):
    def __init__(self, refill):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 5.0))
        self.register_buffer("offset", torch.full((2,), 7.0))
        self.refill = refill

    def reset_parameters(self):
        self.refill(self)


def _rebind(module):
    module.scale = nn.Parameter(torch.full((3,), 2.0))


CUSTOM = {
    "named bound": (lambda m: m.scale.data.uniform_(to=2.0), 0.0, 2.0),
    "named bounds": (lambda m: m.scale.data.uniform_(**{"from": -3.0, "to": -2.0}), -3.0, -2.0),
    "positions": (lambda m: nn.init.uniform_(m.scale, 4.0, 5.0), 4.0, 5.0),
    "composite": (lambda m: nn.init.trunc_normal_(m.scale, 10.0, 1.0, a=8.0, b=12.0), 8.0, 12.0),
    "integers": (lambda m: m.scale.data.random_(3), 0.0, 2.0),
    "order": (lambda m: m.scale.copy_(torch.randperm(3)), 0.0, 2.0),
    "rebound": (_rebind, 2.0, 2.0),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_a_user_written_reset_parameters_is_called(name):
    refill, low, high = CUSTOM[name]

    def both(module):
        refill(module)
        module.shift.fill_(5.0)

    params, state = tp.functional(Custom(both)).init(random.key(0))
    assert params["scale"].min() >= low and params["scale"].max() <= high
    assert torch.equal(params["shift"], torch.full((3,), 5.0)) and torch.equal(state["offset"], torch.full((2,), 7.0))


def test_orthogonal_is_keyed_too():
    class Orthogonal(nn.Linear):
        def reset_parameters(self):
            nn.init.orthogonal_(self.weight)

    weight = tp.functional(Orthogonal(4, 4, bias=False)).init(random.key(0))[0]["weight"]
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=0, atol=1e-5)


def test_a_layer_without_elements():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors is a no-op")
        module = nn.Linear(0, 3)
    params, _ = tp.functional(module).init(random.key(0))
    assert params["weight"].shape == (3, 0) and torch.equal(params["bias"], torch.zeros(3))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


ERRORS = {
    "bare": (
        lambda: nn.Sequential(Bare()),
        ImpureError,
        r"init: `0` \(Bare\) has parameters of its own and no reset_p",
    ),
    "root": (Bare, ImpureError, r"init: `\.` \(Bare\) has parameters of its own"),
    "part": (
        lambda: nn.Sequential(Custom(lambda m: m.scale.data.uniform_())),
        ImpureError,
        "init: nothing refills `0.shift` of Sequential: give its module a reset_parameters",
    ),
    "no inverse": (
        lambda: nn.utils.parametrize.register_parametrization(nn.Linear(3, 3), "weight", nn.Tanh()),
        ImpureError,
        r"init: Tanh has no right_inverse\(\)",
    ),
    "no keyed form": (
        lambda: Custom(lambda m: m.scale.copy_(torch.binomial(torch.ones(3), torch.ones(3) / 2))),
        ImpureError,
        "init: `.` draws with `binomial`",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_submodule(name):
    make, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        tp.functional(make()).init(random.key(0))


def test_a_bad_key_is_an_error():
    with pytest.raises(TypeError, match="wanted a key, as random.key"):
        tp.functional(nn.Linear(1, 1)).init(0)


def test_a_factory_that_converts_its_module_under_jit_is_an_error():
    net = tp.functional(lambda: nn.Sequential(nn.Linear(2, 1), nn.Tanh()).double())
    assert net.init(tp.random.key(0))[0]["0.weight"].dtype is torch.float64
    with pytest.raises(ImpureError, match=r"init: the factory converts a module .* give the layers their dtype"):
        tp.jit(lambda key: net.init(key)[0])(tp.random.key(0))
    same = tp.functional(lambda: nn.Sequential(nn.Linear(2, 1, dtype=torch.float64), nn.Tanh()))
    wanted = same.init(tp.random.key(0))[0]
    assert_close(tp.make_graph(lambda key: same.init(key)[0])(tp.random.key(0))(tp.random.key(0)), wanted)


def test_a_factory_can_be_called_inside_jit_and_grad():
    net = tp.functional(lambda: nn.Linear(3, 2, dtype=torch.float64))

    def value(w, key):
        return tp.fori_loop(0, 2, lambda i, c: c + net.init(key)[0]["weight"].sum() * w.sum(), w.sum() * 0)

    run, w, key = tp.vmap(tp.grad(value), in_dims=(0, None)), torch.ones(2, 2, dtype=torch.float64), tp.random.key(0)
    assert_close(tp.make_graph(run)(w, key)(w, key), run(w, key))

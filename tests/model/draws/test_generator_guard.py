"""Every draw is detected and named, in eager code and inside every transform; other calls are no error."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import torchpure as tp
from torchpure.errors import ImpureError
from torchpure.model.draws import _which_draw

X = torch.linspace(-1, 1, 24).reshape(4, 6)


class Middle(nn.Module):
    """Applies a function after its layer."""

    def __init__(self, fn):
        super().__init__()
        self.linear, self.fn = nn.Linear(6, 6), fn

    def forward(self, x):
        return self.fn(self.linear(x))


def _image(h):
    return h.reshape(1, 1, 4, 6)


# a function that draws, and its name in the error
DRAWING = {
    "torch.dropout": (lambda h: torch.dropout(h, 0.5, True), "dropout"),
    "torch.dropout_": (lambda h: torch.dropout_(h.clone(), 0.5, True), "dropout_"),
    "torch.native_dropout": (lambda h: torch.native_dropout(h, 0.5, True)[0], "native_dropout"),
    "torch.alpha_dropout": (lambda h: torch.alpha_dropout(h, 0.5, True), "alpha_dropout"),
    "torch.feature_dropout": (lambda h: torch.feature_dropout(h, p=0.5, train=True), "feature_dropout"),
    "F.alpha_dropout": (lambda h: F.alpha_dropout(h, 0.5, True), "alpha_dropout"),
    "F.rrelu": (lambda h: F.rrelu(h, training=True), "rrelu"),
    "torch.rrelu": (lambda h: torch.rrelu(h, training=True), "rrelu"),
    "rrelu_with_noise": (
        lambda h: torch._C._nn.rrelu_with_noise(h, torch.zeros_like(h), 0.1, 0.3, True),
        "rrelu_with_noise",
    ),
    "gamma": (lambda h: h + torch.distributions.Gamma(1.0, 1.0).sample(), "_standard_gamma"),
    "dirichlet": (lambda h: h + torch._sample_dirichlet(torch.ones(6)), "_sample_dirichlet"),
    "distribution": (lambda h: h + torch.distributions.Normal(0.0, 1.0).sample(), "normal"),
    "operator packet": (lambda h: h + torch.ops.aten.rand([6]), "rand"),
    "operator": (lambda h: h + torch.ops.aten.bernoulli.default(torch.ones(6)), "bernoulli.default"),
    "nn.init.normal_": (lambda h: h + nn.init.normal_(torch.empty(6)), "normal_"),
    "nn.init.kaiming_uniform_": (lambda h: h @ nn.init.kaiming_uniform_(torch.empty(6, 6)), "kaiming_uniform_"),
    "nn.init.xavier_normal_": (lambda h: h @ nn.init.xavier_normal_(torch.empty(6, 6)), "normal_"),
    "a new layer": (lambda h: nn.Linear(6, 6)(h), "kaiming_uniform_"),
    "svd_lowrank": (lambda h: h + torch.svd_lowrank(torch.eye(6), 2)[1].sum(), "randn"),
    "fractional pool": (lambda h: F.fractional_max_pool2d(_image(h), 2, (2, 3)), "fractional_max_pool2d"),
    "fractional pool, indices": (
        lambda h: F.fractional_max_pool2d(_image(h), 2, (2, 3), return_indices=True)[0],
        "fractional_max_pool2d_with_indices",
    ),
    "sdpa by position": (
        lambda h: F.scaled_dot_product_attention(h[None], h[None], h[None], None, 0.5),
        "scaled_dot_product_attention",
    ),
    "multinomial": (lambda h: h[:, torch.multinomial(torch.ones(6), 2)], "multinomial"),
    "binomial": (lambda h: h + torch.binomial(torch.ones(6), torch.full((6,), 0.5)), "binomial"),
    "poisson": (lambda h: h + torch.poisson(torch.ones(6)), "poisson"),
    "exponential_": (lambda h: h + torch.empty(6).exponential_(), "exponential_"),
    "random_": (lambda h: h + torch.empty(6).random_(3), "random_"),
}


def _calls(net):
    p = net.params

    def loss(q):
        return net(q, X).sum()

    return {
        "call": lambda: net(p, X),
        "apply": lambda: net.apply(p, net.state, X),
        "grad": lambda: tp.grad(loss)(p),
        "grad of grad": lambda: tp.grad(lambda q: tp.grad(loss)(q)["linear.bias"].sum())(p),
        "vmap": lambda: tp.vmap(lambda x: net(p, x))(X[None]),
        "jvp": lambda: tp.jvp(loss, (p,), (p,)),
        "hessian": lambda: tp.hessian(lambda b: loss({**p, "linear.bias": b}))(p["linear.bias"]),
    }


@pytest.mark.parametrize("name", DRAWING)
def test_a_draw_is_named_everywhere(name):
    fn, called = DRAWING[name]
    net = tp.functional(Middle(fn))
    torch.rand(3)
    before = torch.get_rng_state()
    for kind, call in _calls(net).items():
        with pytest.raises(ImpureError, match=f"Middle draws random numbers: `{called}` needs a key"):
            call()
        assert torch.equal(torch.get_rng_state(), before), kind


STILL = {
    "eval": lambda h: F.dropout(h, training=False),
    "rate 0": lambda h: F.dropout(h, 0.0),
    "torch.dropout": lambda h: torch.dropout(h, 0.5, train=False),
    "alpha dropout by default": F.alpha_dropout,
    "rrelu by default": F.rrelu,
    "torch.rrelu by default": torch.rrelu,
    "sdpa": lambda h: F.scaled_dot_product_attention(h[None], h[None], h[None])[0],
    "fractional pool of given samples": lambda h: F.fractional_max_pool2d(
        _image(h), 2, (2, 3), _random_samples=torch.full((1, 1, 2), 0.5)
    ),
    "own generator": lambda h: h + torch.rand(6, generator=torch.Generator().manual_seed(0)),
    "operator in eval": lambda h: torch.ops.aten.native_dropout(h, 0.5, False)[0],
}


@pytest.mark.parametrize("name", STILL)
def test_a_call_that_does_not_draw_is_no_error(name):
    net = tp.functional(Middle(STILL[name]))
    expected = net.to_module()(X).detach()
    assert torch.equal(net(net.params, X), expected)
    assert tp.jvp(lambda p: net(p, X), (net.params,), (net.params,))[0].isfinite().all()


def test_every_random_operator_of_torch_is_known():
    """Fails if a new torch version adds a random function that the tables do not name."""
    known = {
        getattr(func, "__name__", "")
        for func in (*_which_draw.ALWAYS_DRAW, *_which_draw.DRAW_IF_ALL_TRUE, *_which_draw.FRACTIONAL_POOLS)
    }
    known |= {"gru", "lstm", "rnn_relu", "rnn_tanh"}
    packets = {name: getattr(torch.ops.aten, name, None) for name in dir(torch.ops.aten)}
    marked = {
        name
        for name, packet in packets.items()
        if isinstance(packet, torch._ops.OpOverloadPacket)
        and any(torch.Tag.nondeterministic_seeded in getattr(packet, part).tags for part in packet.overloads())
    }
    public = {name for name in marked if not name.startswith(("_", "miopen"))}
    public = {name for name in public if any(hasattr(space, name) for space in (torch, torch.Tensor, F, torch._C._nn))}
    assert {"rand", "dropout", "normal_"} <= public
    assert public <= known


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_dropout(kind, packed, training):
    x = torch.ones(5, 2, 3)
    data = nn.utils.rnn.pack_padded_sequence(x, [5, 3]) if packed else x
    net = tp.functional(kind(3, 4, 2, dropout=0.5).train(training))
    if training:
        with pytest.raises(ImpureError, match="draws random numbers"):
            net(net.params, data)
        with pytest.raises(ImpureError, match="draws random numbers"):
            tp.grad(lambda p: tp.grad(lambda q: net(q, data)[1][0].sum())(p)["bias_hh_l0"].sum())(net.params)
    else:
        net(net.params, data)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_attention_dropout(p):
    module = nn.MultiheadAttention(4, 2, dropout=p)
    net, x = tp.functional(module), torch.ones(3, 1, 4)
    if p:
        with pytest.raises(ImpureError, match="`multi_head_attention_forward`"):
            net(net.params, x, x, x)
        with pytest.raises(ImpureError, match="`multi_head_attention_forward`"):
            tp.jvp(lambda q: net(q, x, x, x)[0], (net.params,), (net.params,))
    else:
        torch.testing.assert_close(net(net.params, x, x, x)[0], module(x, x, x)[0].detach(), rtol=0, atol=0)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Tanh(), nn.Dropout(0.3)))

    def forward(self, x):
        return self.body(x)


def test_the_innermost_submodule_is_named():
    net = tp.functional(nn.ModuleDict({"left": Encoder()})["left"])
    for call in (net, lambda p, x: tp.vmap(lambda x: net(p, x))(x)):
        with pytest.raises(ImpureError, match=r"Encoder draws random numbers: `dropout` in `body\.1\.1` needs a key"):
            call(net.params, X)


def test_a_module_that_draws_on_some_inputs_only():
    net = tp.functional(Middle(lambda h: h if h.sum() < 1e6 else h + torch.rand(6)))
    expected = net.to_module()(X).detach()
    assert torch.equal(net(net.params, X), expected)
    with pytest.raises(ImpureError, match="`rand`"):
        net(tp.tree.map(lambda leaf: leaf.abs() + 1e6, net.params), X.abs())
    assert torch.equal(net(net.params, X), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 623, 624, 625, 1248])
@pytest.mark.parametrize("draw", [torch.rand, torch.randn], ids=["rand", "randn"])
def test_any_number_of_draws_is_detected(draw, count):
    net = tp.functional(Middle(lambda h: h + draw(count).sum()))
    torch.manual_seed(0)
    for warm in range(3):  # the generator may have cached the second normal value of a pair
        torch.randn(warm)
        before = torch.get_rng_state()
        with pytest.raises(ImpureError, match=f"`{draw.__name__}`"):
            net(net.params, X)
        assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_before_an_exception_is_reported():
    def broken(h):
        torch.rand(3)
        raise KeyError("broken")

    net = tp.functional(Middle(broken))
    before = torch.get_rng_state()
    with pytest.raises(ImpureError, match="`rand`"):
        net(net.params, X)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_is_an_error():
    net = tp.functional(Middle(lambda h: torch.manual_seed(12345) and h))
    before = torch.get_rng_state()
    with pytest.raises(ImpureError, match="Middle seeds the global generator"):
        net(net.params, X)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_custom_operator_that_draws_is_an_error():
    @torch.library.custom_op("torchpure_tests::noisy", mutates_args=())
    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(6)

    net = tp.functional(Middle(lambda h: noisy(h)))
    before = torch.get_rng_state()
    with pytest.raises(ImpureError, match="draws random numbers: a random call needs a key"):
        net(net.params, X)
    assert torch.equal(torch.get_rng_state(), before)


def test_constant_draws_of_another_thread_are_no_error():
    """The generator changes in every call; still only a module that draws is an error."""

    def with_another_draw(h):  # another thread draws during the forward
        _other_thread(lambda: torch.rand(3))
        return h

    net = tp.functional(Middle(with_another_draw))
    expected = net.to_module()(X).detach()
    for _ in range(5):
        assert torch.equal(net(net.params, X), expected)
    net = tp.functional(Middle(lambda h: F.dropout(with_another_draw(h))))
    with pytest.raises(ImpureError, match="`dropout`"):
        net(net.params, X)


def _other_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_function_modes_of_the_caller_stay_active():
    class Count(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen += func is F.linear
            return func(*args, **(kwargs or {}))

    net = tp.functional(Middle(torch.tanh))
    with Count() as count:
        net(net.params, X)
    assert count.seen == 1

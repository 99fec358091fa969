"""Unmodified modules as pure functions."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch import rand as relu6  # a misleading name on purpose
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import ImpureError, ParameterError
from torchpure.model.copies._never_draws import never_draws

X = torch.linspace(-1, 1, 12).reshape(4, 3)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 3), nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight
        self.encoder.bias.requires_grad_(False)

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x)))


class Calling(nn.Module):
    """Applies a function in the middle of its forward."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, inner=None):
        y = self.linear(x)
        y = inner(y) if inner else y
        return self.linear(y)


MODULES = {
    "linear": (lambda: nn.Linear(3, 2), X),
    "tied": (Tied, X),
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 1)), X),
    "conv": (lambda: nn.Sequential(nn.Conv1d(1, 2, 2), nn.GELU(), nn.Flatten()), X[:, None]),
    "embedding": (lambda: nn.Embedding(5, 3), torch.tensor([0, 4, 2])),
    "batch norm, eval": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), X),
    "dropout, eval": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).eval(), X),
    "lstm": (lambda: nn.LSTM(3, 4, 2, batch_first=True), X[None]),
    "gru, eval": (lambda: nn.GRU(3, 4, 2, dropout=0.5).eval(), X[None]),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval(), torch.ones(2, 3, 4)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), X),
}


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", MODULES)
def test_law_functional_equals_the_module(name):
    make, x = MODULES[name]
    module = make()
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # attention uses another kernel without gradients
    net = tp.functional(module)
    assert_close(first(net(net.params, x)), first(module(x)), rtol=0, atol=0)
    moved = tp.tree.scale(net.params, 1.5)
    twin = net.to_module(moved)
    assert_close(first(net(moved, x)), first(twin(x)), rtol=1e-6, atol=1e-7)
    assert_close(first(net(net.params, x)), first(module(x)), rtol=0, atol=0)
    output, state = net.apply(net.params, net.state, x)
    assert_close(first(output), first(module(x)), rtol=0, atol=0)
    assert state.keys() == net.state.keys()


def test_values_are_detached_copies_and_the_module_does_not_change():
    module = Tied()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    net = tp.functional(module)
    result = tp.fit(net, (X, X), optimizer=tp.optim.adam(0.1), steps=5)
    assert not torch.equal(result.params["encoder.weight"], net.params["encoder.weight"])
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(value.requires_grad for value in net.params.values())
    memory = {value.data_ptr() for value in module.parameters()}
    assert not memory & {value.data_ptr() for value in net.params.values()}
    with torch.no_grad():
        module.encoder.weight.zero_()
    module.eval()
    assert torch.equal(net.params["encoder.weight"], before["encoder.weight"])


def test_tied_weights_appear_once_and_stay_tied():
    net = tp.functional(Tied())
    assert list(net.params) == ["encoder.weight", "encoder.bias", "decoder.bias"]
    module = net.to_module(net.params)
    assert module.encoder.weight is module.decoder.weight
    assert [p.requires_grad for p in module.parameters()] == [True, False, True]
    assert isinstance(module.encoder.weight, nn.Parameter)


@pytest.mark.parametrize("form", [dict, lambda p: tuple(p.values()), tp.model.nested], ids=["dict", "tuple", "nested"])
def test_gradients_have_the_form_of_the_parameters(form):
    net = tp.functional(Tied())
    params = form(net.params)
    assert torch.equal(net(params, X), net(net.params, X))
    gradient = tp.grad(lambda p: net(p, X).sum())(params)
    tp.tree.check_same(params, gradient)
    flat = tp.grad(lambda p: net(p, X).sum())(net.params)
    for one, two in zip(tp.tree.leaves(gradient), tp.tree.leaves(form(flat)), strict=True):
        assert torch.equal(one, two)


PARAMETER_ERRORS = {
    "missing": (lambda p: {"encoder.weight": p["encoder.weight"]}, "missing `encoder.bias`; missing `decoder.bias`"),
    "unexpected": (lambda p: {**p, "extra": X}, "unexpected `extra`"),
    "tied": (lambda p: {**p, "decoder.weight": X}, r"unexpected `decoder.weight` \(tied to `encoder.weight`"),
    "shape": (
        lambda p: {**p, "encoder.bias": X},
        r"`encoder.bias` wants shape \(3,\), got a float32 tensor of shape \(4, 3\)",
    ),
    "kind": (lambda p: {**p, "encoder.bias": "x"}, r"`encoder.bias` wants a tensor of shape \(3,\), got str 'x'"),
    "None": (lambda p: {**p, "encoder.bias": None}, "missing `encoder.bias`"),
    "length": (lambda p: (X,), "wanted 3 parameters in the order encoder.weight, encoder.bias, decoder.bias, got 1"),
    "no tree": (lambda p: 3, "wanted a dict, a tuple or a nested dict, got int 3"),
    "nested": (lambda p: {"encoder": {"weight": p["encoder.weight"]}}, "missing `encoder.bias`"),
}


@pytest.mark.parametrize("name", PARAMETER_ERRORS)
def test_parameter_errors_name_the_path(name):
    change, message = PARAMETER_ERRORS[name]
    net = tp.functional(Tied())
    with pytest.raises(ParameterError, match=f"Tied: parameters: .*{message}"):
        net(change(net.params), X)
    with pytest.raises(ParameterError, match=message):
        net.to_module(change(net.params))


def test_calls_nest():
    net = tp.functional(Calling())
    other = tp.tree.scale(net.params, -2.0)
    inner = net(other, net.params["linear.bias"] + X @ net.params["linear.weight"].T)
    expected = inner @ net.params["linear.weight"].T + net.params["linear.bias"]
    assert_close(net(net.params, X, inner=lambda y: net(other, y)), expected)


def test_threads_have_their_own_parameters():
    net = tp.functional(nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)]))
    members = [tp.tree.scale(net.params, 1.0 + 0.1 * number) for number in range(8)]
    expected = [net(member, X) for member in members]
    wrong = []

    def work(number):
        wrong.extend(number for _ in range(200) if not torch.equal(net(members[number], X), expected[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_exception_leaves_nothing_changed():
    net = tp.functional(Calling())
    before = net(net.params, X)

    def broken(y):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        net(tp.tree.scale(net.params, 3.0), X, inner=broken)
    assert torch.equal(net(net.params, X), before)


class Noise(nn.Module):
    def __init__(self, draw, dropout=None):
        super().__init__()
        self.draw, self.inner = draw, dropout

    def forward(self, x):
        return self.inner(x) if self.inner else self.draw(x)


Q = torch.ones(1, 2, 3, 4)
DRAWS = {
    "dropout": (nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout())), X, "`dropout` in `1.0`"),
    "dropout1d": (nn.Dropout1d(), X, "`dropout1d`"),
    "dropout2d": (nn.Dropout2d(), Q, "`dropout2d`"),
    "dropout3d": (nn.Dropout3d(), Q, "`dropout3d`"),
    "alpha dropout": (nn.AlphaDropout(), X, "`alpha_dropout`"),
    "feature alpha dropout": (nn.FeatureAlphaDropout(), X, "`feature_alpha_dropout`"),
    "rrelu": (nn.RReLU(), X, "`rrelu`"),
    "F.dropout": (Noise(F.dropout), X, "`dropout`"),
    "rand_like": (Noise(torch.rand_like), X, "`rand_like`"),
    "rand": (Noise(lambda x: x + torch.rand(3)), X, "`rand`"),
    "normal_": (Noise(lambda x: x + torch.empty(3).normal_()), X, "`normal_`"),
    "randperm": (Noise(lambda x: x[torch.randperm(4)]), X, "`randperm`"),
    "gumbel": (Noise(F.gumbel_softmax), X, "`gumbel_softmax`"),
    "attention": (Noise(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)), Q, "`scaled_dot_product"),
    "lstm": (nn.LSTM(3, 3, 2, dropout=0.5), X, "`lstm`"),
    "gru": (nn.GRU(3, 3, 2, dropout=0.5), X, "`gru`"),
    "multi-head attention": (nn.TransformerEncoderLayer(4, 2, 8), Q[0], "layer|dropout|attention"),
    "operator": (Noise(lambda x: torch.ops.aten.rand_like(x)), X, "`rand_like`"),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_an_error_and_leaves_the_generator(name):
    module, x, message = DRAWS[name]
    net = tp.functional(module)
    before = torch.get_rng_state()
    with pytest.raises(ImpureError, match=f"draws random numbers: .*({message}).*net.apply"):
        net(net.params, x)
    with pytest.raises(ImpureError, match="draws random numbers"):
        tp.vmap(lambda x: first(net(net.params, x)))(x[None])
    if name != "operator":  # a function mode does not see calls of operators
        one, two = (first(net.apply(net.params, net.state, x, key=tp.random.key(0))[0]) for _ in range(2))
        assert torch.equal(one, two)
    else:
        with pytest.raises(ImpureError, match="`rand_like` needs a key. The key that was given cannot answer it"):
            net.apply(net.params, net.state, x, key=tp.random.key(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_of_the_cached_normal_value_is_detected():
    net = tp.functional(Noise(lambda x: x + torch.randn(1) if x.sum() > 0 else x))
    torch.randn(1)
    assert torch.equal(net(net.params, -X.abs()), -X.abs())
    with pytest.raises(ImpureError, match="`randn`"):
        net(net.params, X.abs() + 1)


def test_a_function_given_as_an_input_must_not_draw():
    net = tp.functional(forward_of(lambda self, x: x(3)))
    assert torch.equal(net({}, torch.zeros), torch.zeros(3))
    with pytest.raises(ImpureError, match="`rand`"):
        net({}, torch.rand)


def test_draws_of_another_thread_are_no_error():
    net, stop = tp.functional(Noise(torch.tanh)), threading.Event()

    def draw():
        while not stop.wait(0.001):
            torch.rand(3)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(300):
            assert torch.equal(net(net.params, X), torch.tanh(X))
    finally:
        stop.set()
        thread.join()


class Counter(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.in_place:
            self.calls.add_(1)
        else:
            self.calls = self.calls + 1
        return x + self.calls


@pytest.mark.parametrize("in_place", [True, False])
def test_a_changed_buffer_is_an_error_and_apply_returns_it(in_place):
    net = tp.functional(Counter(in_place))
    for _ in range(2):
        with pytest.raises(ImpureError, match=r"Counter changes its buffer `calls`.*net.apply\(params, state"):
            net(net.params, X)
    state = net.state
    for number in (1, 2):
        output, state = net.apply(net.params, state, X)
        assert torch.equal(output, X + number) and state["calls"] == number
    assert net.state["calls"] == 0


def test_batch_norm_in_training():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    net = tp.functional(module)
    for call in (
        lambda: net(net.params, X),
        lambda: tp.grad(lambda p: net(p, X).sum())(net.params),
        lambda: tp.hessian(lambda p: net(p, X).sum())(net.params),
        lambda: tp.vmap(lambda x: net(net.params, x))(X[None]),
    ):
        with pytest.raises(ImpureError, match=r"net\.apply"):
            call()
    before = {name: value.clone() for name, value in net.state.items()}
    output, state = net.apply(net.params, net.state, X)
    assert torch.equal(output, module(X))
    assert all(torch.equal(state[name], value) for name, value in module.named_buffers())
    assert all(torch.equal(before[name], value) for name, value in net.state.items())


class Captures(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.fn = lambda x: self.linear(x)

    def forward(self, x):
        return self.fn(x)


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (Captures, ImpureError, "`fn` of Captures holds the module itself"),
        (lambda: nn.Sequential(Locked()), ParameterError, r"cannot copy attribute `0.lock` \(lock\)"),
        (lambda: nn.LazyLinear(2), ParameterError, "`weight` has no shape yet: call the module once"),
        (lambda: 3, TypeError, "wanted an nn.Module that is not scripted, got int"),
    ],
)
def test_modules_that_cannot_be_functional(make, error, message):
    with pytest.raises(error, match=message):
        tp.functional(make())


def test_init_is_a_function_of_the_key():
    net = tp.functional(nn.Sequential(nn.Linear(400, 300), nn.Tanh(), nn.Embedding(300, 40)))
    before = torch.get_rng_state()
    (one, _), (two, _), (other, _) = (net.init(tp.random.key(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    bound = 400**-0.5  # torch.nn.Linear draws from U(−1/√n, 1/√n), torch.nn.Embedding from N(0, 1)
    assert one["0.weight"].abs().max() <= bound and one["0.bias"].abs().max() <= bound
    assert_close(one["0.weight"].std(), torch.tensor(bound / 3**0.5), rtol=0.01, atol=0)
    assert_close(one["2.weight"].std(), torch.tensor(1.0), rtol=0.02, atol=0)
    with pytest.raises(ImpureError, match=r"init: `0` \(Bare\) has parameters of its own and no reset_parameters"):
        tp.functional(nn.Sequential(Bare())).init(tp.random.key(0))


def helper(x):
    return torch.rand_like(x)


class Article(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, 5), nn.Tanh())

    def forward(self, x):
        return self.network(x.reshape(-1, 1)).squeeze()


def forward_of(fn, **attributes):
    module = type("Made", (nn.Module,), {"forward": fn})()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def _default(self, x, draw=torch.rand):
    return x + draw(3)


def _nested(self, x):
    return (lambda y: y + torch.rand(3))(x)


def _inner(self, x):
    from torch import rand as tanh

    return x + tanh(3)


def _hooked():
    module = nn.Linear(3, 3)
    module.register_forward_hook(lambda module, inputs, output: output + torch.rand(3))
    return module


UNPROVEN = {
    "helper": forward_of(lambda self, x: helper(x)),
    "alias": forward_of(lambda self, x: x + relu6(3)),
    "attribute": forward_of(lambda self, x: self.tanh(x), tanh=helper),
    "getattr": forward_of(lambda self, x: getattr(torch, "ra" + "nd")(3)),
    "default": forward_of(_default),
    "nested": forward_of(_nested),
    "import": forward_of(_inner),
    "ops": forward_of(lambda self, x: torch.ops.aten.bernoulli(x)),
    "fill": forward_of(lambda self, x: x.new_empty(3).normal_()),
    "hook": _hooked(),
    "dropout": nn.Sequential(nn.Dropout()),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_a_module_that_may_draw_is_not_proven(name):
    assert not never_draws(UNPROVEN[name])


def test_a_module_that_cannot_draw_is_proven():
    assert never_draws(Article())
    assert never_draws(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.LayerNorm(2)))


@pytest.mark.compile
def test_a_compiled_call_equals_the_module_and_refuses_draws():
    net = tp.functional(Tied())
    compiled = torch.compile(lambda p, x: net(p, x), fullgraph=True, backend="eager")
    assert_close(compiled(net.params, X), net(net.params, X))
    for module in (nn.Dropout(), nn.BatchNorm1d(3), forward_of(lambda self, x: torch.rand_like(x))):
        impure = tp.functional(module)
        with pytest.raises(torch._dynamo.exc.Unsupported):
            torch.compile(lambda p, x: impure(p, x), fullgraph=True, backend="eager")(impure.params, X)  # noqa: B023

"""A functional module is independent of the module it was made from, and of its own earlier calls."""

import functools
import threading
import warnings

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import ImpureError, ParameterError
from torchpure.model.copies._hidden_state import has_hidden_state
from torchpure.testing import assert_trees_close_to_rounding

X = torch.linspace(-1, 1, 6).reshape(2, 3)


def made(forward, **attributes):
    module = type("Made", (nn.Module,), {"forward": forward})()
    module.linear = nn.Linear(3, 3)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def _set(name, value):
    return lambda module: setattr(module, name, value)


LATER = {
    "value": lambda module: module.linear.weight.data.zero_(),
    "parameter": lambda module: setattr(module.linear, "weight", nn.Parameter(torch.zeros(3, 3))),
    "mode": lambda module: module.eval(),
    "number": _set("factor", 7.0),
    "tensor in place": lambda module: module.shift.add_(7.0),
    "tensor": _set("shift", torch.full((3,), 7.0)),
    "list": lambda module: module.extras.append(7.0),
    "layer": _set("linear", nn.Linear(3, 3)),
    "hook": lambda module: module.register_forward_hook(lambda module, args, output: output * 0),
    "buffer": lambda module: module.offset.add_(7.0),
}


def _forward(self, x):
    return self.linear(x) * self.factor + self.shift + sum(self.extras) + self.offset * self.training


def _rich():
    module = made(_forward, factor=2.0, shift=torch.ones(3), extras=[1.0])
    module.register_buffer("offset", torch.ones(3))
    return module


@pytest.mark.parametrize("name", LATER)
def test_later_changes_of_the_module_have_no_effect(name):
    module = _rich()
    net = tp.functional(module)
    expected, twin = net(net.params, X), net.to_module()
    LATER[name](module)
    assert torch.equal(net(net.params, X), expected)
    assert torch.equal(twin(X).detach(), expected)
    LATER[name](twin)
    assert torch.equal(net(net.params, X), expected)
    assert torch.equal(net.to_module()(X).detach(), expected)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_tensor_attributes_are_detached_copies(requires_grad):
    shift = torch.ones(3, requires_grad=requires_grad) * 2  # not a leaf of the graph: copy.deepcopy refuses it
    net = tp.functional(made(lambda self, x: self.linear(x) + self.shift, shift=shift))
    output = net(net.params, X)
    assert not output.requires_grad
    wanted = X @ net.params["linear.weight"].T + net.params["linear.bias"] + 2
    assert_trees_close_to_rounding(output, wanted)
    assert net.to_module().shift is not shift


def _count(self, x):
    self.calls = self.calls + 1
    return self.linear(x) * self.calls


def _accumulate(self, x):
    self.total += 1
    return self.linear(x) * self.total


def _append(self, x):
    self.seen.append(1)
    return self.linear(x) * len(self.seen)


def _cache(self, x):
    self.table["n"] = self.table.get("n", 0) + 1
    return self.linear(x) * self.table["n"]


def _setattr(self, x):
    setattr(self, "calls", self.calls + 1)  # noqa: B010
    return self.linear(x) * self.calls


class Deep(nn.Module):
    """Sets an attribute of a child, in a method."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.linear.calls = 0

    def note(self):
        self.linear.calls += 1
        return self.linear.calls

    def forward(self, x):
        return self.linear(x) * self.note()


def _hooked():
    def hook(module, args, output):
        module.calls = module.calls + 1
        return output * module.calls

    module = made(lambda self, x: self.linear(x))
    module.linear.calls = 0
    module.linear.register_forward_hook(hook)
    return module


REMEMBERING = {
    "attribute": lambda: made(_count, calls=0),
    "tensor in place": lambda: made(_accumulate, total=torch.zeros(())),
    "tensor by method": lambda: made(lambda self, x: self.linear(x) * self.n.add_(1), n=torch.zeros(())),
    "list": lambda: made(_append, seen=[]),
    "dict": lambda: made(_cache, table={}),
    "setattr": lambda: made(_setattr, calls=0),
    "method": Deep,
    "hook": _hooked,
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_same_call_gives_the_same_result(name):
    module = REMEMBERING[name]()
    net = tp.functional(module)
    plain = X @ net.params["linear.weight"].T + net.params["linear.bias"]
    for _ in range(3):
        torch.testing.assert_close(net(net.params, X), plain)
        torch.testing.assert_close(net.apply(net.params, net.state, X)[0], plain)
    torch.testing.assert_close(module(X).detach(), plain)  # the module's first call
    assert has_hidden_state(module)


def test_a_copy_without_hidden_state_is_reused():
    def collect(self, x):
        rows = []
        rows.append(self.linear(x))
        return rows[0]

    assert not has_hidden_state(_rich()) and not has_hidden_state(made(collect))
    assert not has_hidden_state(nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, batch_first=True), 1))
    net = tp.functional(made(collect))
    pool = net.call.args[0]
    net(net.params, X)
    skeleton = pool.take()
    pool.put_back(skeleton)
    net(net.params, X)
    assert pool.take() is skeleton


@pytest.mark.parametrize("transform", ["vmap", "grad", "hessian", "inference"])
def test_a_first_call_inside_a_transform_makes_ordinary_copies(transform):
    net = tp.functional(_rich())
    expected = tp.functional(net.to_module())(net.params, X)

    def loss(p):
        return net(p, X).sum()

    calls = {
        "vmap": lambda: tp.vmap(lambda x: net(net.params, x))(X),
        "grad": lambda: torch.func.grad(loss)(net.params),
        "hessian": lambda: tp.hessian(loss)(net.params),
        "inference": lambda: torch.inference_mode()(lambda: net(net.params, X))(),
    }
    calls[transform]()
    assert torch.equal(net(net.params, X), expected)
    assert tp.grad(loss)(net.params)["linear.bias"].equal(torch.full((3,), 4.0))


def test_a_module_made_functional_in_inference_mode_can_be_trained():
    with torch.inference_mode():
        net = tp.functional(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval())
    assert not any(value.is_inference() for value in (*net.params.values(), *net.state.values()))
    leaf = net.params["0.bias"].clone().requires_grad_()
    net({**net.params, "0.bias": leaf}, X).sum().backward()
    assert leaf.grad.isfinite().all()


IN_PLACE = {
    "embedding": (
        lambda: made(
            lambda self, x: torch.nn.functional.embedding(x, self.scale, max_norm=0.1),
            scale=nn.Parameter(torch.ones(4, 3)),
        ),
        torch.tensor([0, 1]),
        "Made changes its parameter `scale`",
    ),
    "clamp": (
        lambda: made(lambda self, x: x * self.scale.detach().clamp_(-1, -0.5), scale=nn.Parameter(torch.ones(3))),
        X,
        "Made changes its parameter `scale`",
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_parameter_that_is_changed_in_place_is_an_error(name):
    make, x, message = IN_PLACE[name]
    net = tp.functional(make())
    for call in (
        lambda p: net(p, x),
        lambda p: net.apply(p, net.state, x),
        lambda p: tp.grad(lambda q: net(q, x).sum())(p),
    ):
        with pytest.raises(ImpureError, match=message):
            call({name: value.clone() for name, value in net.params.items()})


def _function(held):
    return lambda x: x * held


def _default_of(held):
    return lambda x, held=held: x * held


class Holder(nn.Module):
    def __init__(self, hold):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.held = hold(self)

    def forward(self, x):
        return self.linear(x)


def _listed(module):
    return _function([module.linear.weight])


def _nested(module):
    inner = _function(module.linear)
    return lambda x: inner(x)


HOLDING = {
    "closure of the module": lambda m: lambda x: m.linear(x),
    "closure of a parameter": lambda m: _function(m.linear.weight),
    "closure of a list": _listed,
    "closure of a closure": _nested,
    "default": lambda m: _default_of(m.linear.bias),
    "partial": lambda m: functools.partial(torch.mul, m.linear.bias),
    "list of parameters": lambda m: [m.linear.weight],
    "dict of tuples": lambda m: {"a": (m.linear.weight, 1)},
}


@pytest.mark.parametrize("name", HOLDING)
def test_a_module_that_holds_its_own_values_is_an_error(name):
    with pytest.raises(ImpureError, match=r"functional: `0\.held` of Holder holds the module itself or a value of it"):
        tp.functional(nn.Sequential(Holder(HOLDING[name])))


COPIED = {
    "bound method": lambda m: m.linear.forward,
    "list of layers": lambda m: [m.linear],
    "function of its own": lambda m: torch.tanh,
    "closure of something else": lambda m: _function(torch.ones(3)),
}


@pytest.mark.parametrize("name", COPIED)
def test_values_that_are_copied_with_the_module_are_allowed(name):
    net = tp.functional(Holder(COPIED[name]))
    moved = tp.tree.scale(net.params, 2.0)
    assert_trees_close_to_rounding(net(moved, X), X @ moved["linear.weight"].T + moved["linear.bias"])


def test_a_bound_method_uses_the_given_parameters():
    module = Holder(lambda m: m.linear.forward)
    type(module).forward, before = lambda self, x: self.held(x), type(module).forward
    try:
        net = tp.functional(module)
        moved = tp.tree.scale(net.params, 2.0)
        torch.testing.assert_close(net(moved, X), X @ moved["linear.weight"].T + moved["linear.bias"])
    finally:
        type(module).forward = before


_GLOBAL = nn.Linear(3, 3)


def test_a_hook_that_uses_the_module_by_a_global_name_is_an_error():
    handle = _GLOBAL.register_forward_hook(lambda module, args, output: output + _GLOBAL.bias)
    try:
        with pytest.raises(ImpureError, match="`_forward_hooks` of Linear holds the module itself"):
            tp.functional(_GLOBAL)
    finally:
        handle.remove()


def test_hooks_that_use_their_argument_work():
    module = nn.Sequential(nn.Linear(3, 3))
    module[0].register_forward_hook(lambda module, args, output: output * module.bias)
    module[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    net = tp.functional(module)
    moved = tp.tree.scale(net.params, 2.0)
    assert torch.equal(net(moved, X), net.to_module(moved)(X).detach())
    bias = moved["0.bias"]
    torch.testing.assert_close(net(moved, X), ((X + 1) @ moved["0.weight"].T + bias) * bias)


REFUSED = {
    "lazy parameter": (nn.LazyConv1d, (2, 1), ParameterError, "`weight` has no shape yet"),
    "lazy buffer": (lambda: nn.LazyBatchNorm1d(affine=False), (), ParameterError, "`running_mean` has no shape yet"),
    "lock": (lambda: Holder(lambda m: threading.Lock()), (), ParameterError, r"cannot copy attribute `held` \(lock\)"),
    "graph in a list": (
        lambda: Holder(lambda m: [torch.ones(3, requires_grad=True) * 2]),
        (),
        ParameterError,
        r"cannot copy attribute `held` \(list\): Only Tensors created explicitly",
    ),
    "uncopyable class": (lambda: Uncopyable(), (), ParameterError, "cannot copy the module: not me"),
    "number": (lambda: 3, (), TypeError, "wanted an nn.Module that is not scripted, got int"),
    "factory of none": (lambda: dict, (), TypeError, "the factory must return an nn.Module, got dict"),
}


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo):
        raise RuntimeError("not me")


@pytest.mark.parametrize("name", REFUSED)
def test_modules_that_are_refused(name):
    make, args, error, message = REFUSED[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lazy modules are a new feature")
        module = make(*args)
    with pytest.raises(error, match=message):
        tp.functional(module)


def test_a_scripted_module_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Linear(3, 3))
    with pytest.raises(TypeError, match="functional: wanted an nn.Module that is not scripted, got RecursiveScriptM"):
        tp.functional(scripted)


@pytest.mark.parametrize("name", ["spectral_norm", "weight_norm", "orthogonal"])
def test_parametrizations_in_eval(name):
    module = getattr(nn.utils.parametrizations, name)(nn.Linear(3, 3)).eval()
    net = tp.functional(module)
    assert torch.equal(net(net.params, X), module(X).detach())
    gradient = tp.grad(lambda p: net(p, X).square().sum())(net.params)
    loss = module(X).square().sum()
    expected = dict(zip(net.params, torch.autograd.grad(loss, list(module.parameters())), strict=True))
    for path in net.params:
        torch.testing.assert_close(gradient[path], expected[path])


def net_far_from_converged(module):
    with torch.no_grad():
        for buffer in module.buffers():
            buffer.copy_(torch.eye(3)[0])
    return module


def test_spectral_norm_in_training_updates_its_state():
    module = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
    net = tp.functional(net_far_from_converged(module))
    with pytest.raises(ImpureError, match=r"changes its buffer `parametrizations.weight.0._[uv]`"):
        net(net.params, X)
    before = {name: value.clone() for name, value in net.state.items()}
    start = {name: torch.eye(3)[0] for name in before}  # far from the fixed point of the power iteration
    module = net.to_module(net.params, start)
    output, state = net.apply(net.params, start, X)
    assert torch.equal(output, module(X).detach())
    assert all(torch.equal(state[name], value) for name, value in module.named_buffers())
    assert all(torch.equal(net.state[name], value) for name, value in before.items())
    assert not torch.equal(state["parametrizations.weight.0._u"], start["parametrizations.weight.0._u"])


def test_threads_share_nothing_even_if_one_raises():
    def forward(self, x, fail=False):
        h = self.linear(x)
        if fail:
            raise KeyError("fail")
        return self.linear(torch.tanh(h))

    net = tp.functional(made(forward))
    members = [tp.tree.scale(net.params, 0.5 + number) for number in range(6)]
    expected = [tp.value_and_grad(lambda p: net(p, X).sum())(member) for member in members]
    wrong = []

    def work(number):
        for turn in range(60):
            if turn % 3 == 0:
                with pytest.raises(KeyError):
                    net(members[number], X, fail=True)
            value, grads = tp.value_and_grad(lambda p: net(p, X).sum())(members[number])
            same = torch.equal(value, expected[number][0]) and torch.equal(
                grads["linear.weight"], expected[number][1]["linear.weight"]
            )
            wrong.extend([] if same else [number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_state_errors_name_the_path():
    net = tp.functional(nn.Sequential(nn.BatchNorm1d(3)))
    state = {name: value for name, value in net.state.items() if name != "0.running_var"}
    with pytest.raises(ParameterError, match="Sequential: buffers: missing `0.running_var`"):
        net.apply(net.params, state, X)
    with pytest.raises(ParameterError, match=r"Sequential: buffers: `0.running_var` wants shape \(3,\), got .* \(2,\)"):
        net.to_module(state={**net.state, "0.running_var": torch.ones(2)})


def test_many_problems_are_counted():
    net = tp.functional(nn.Sequential(*[nn.Linear(1, 1) for _ in range(6)]))
    with pytest.raises(ParameterError, match="missing `0.weight`; missing `0.bias`; .* and 4 more$"):
        net({}, X)
    with pytest.raises(ParameterError, match=r"wanted 12 parameters in the order 0.weight, .* and 4 more, got 0$"):
        net((), X)

"""The proof that a module never draws is never true for a module that draws."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch import rand as tanh  # misleading names on purpose
from torch import rand as zip

import torchpure as tp
from torchpure.errors import ImpureError
from torchpure.model.copies._never_draws import never_draws

X = torch.linspace(-1, 1, 6).reshape(2, 3)


def noise(x):
    return x + torch.rand(3)


class Scaled(torch.Tensor):
    """A tensor subclass that draws in every operation."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        torch.rand(1)
        return super().__torch_function__(func, types, args, kwargs)


class Wild(float):
    def __rmul__(self, other):
        return other + torch.rand(3)


class Mixin:
    def mean(self):
        return torch.rand(3)


class Inherited(Mixin, nn.Module):
    def forward(self, x):
        return x + self.mean()


class Property(nn.Module):
    @property
    def norm(self):
        return torch.rand(3)

    def forward(self, x):
        return x + self.norm


class InheritedProperty(Property):
    def forward(self, x):
        return x * self.norm


class Method(nn.Module):
    def std(self):
        return torch.rand(3)

    def forward(self, x):
        return x.tanh()


class OfChild(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = Method()

    def forward(self, x):
        return x + self.child.std()


class ChildsFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = nn.Tanh()
        self.child.sum = noise

    def forward(self, x):
        return self.child.sum(x)


class NamedAsDraw(nn.Module):
    """Has a layer named `dropout`, but calls another one."""

    def __init__(self):
        super().__init__()
        self.dropout, self.rand = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return F.dropout(x)


class NamedAsModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.Linear = nn.Linear(3, 3)

    def forward(self, x):
        return torch.nn.Linear(3, 3)(x)


class Called(nn.Linear):
    def __call__(self, x):
        return noise(super().__call__(x))


class CallImpl(nn.Linear):
    def _call_impl(self, x):
        return noise(x)


class Getattr(nn.Module):
    def __getattr__(self, name):
        return torch.rand(3) if name == "mean" else super().__getattr__(name)

    def forward(self, x):
        return x + self.mean


class Getattribute(nn.Module):
    def __getattribute__(self, name):
        return torch.rand(3) if name == "T" else super().__getattribute__(name)

    def forward(self, x):
        return x + self.T


class Super(nn.Dropout):
    def forward(self, x):
        return super().forward(x)


class Iterating(nn.Sequential):
    def __iter__(self):
        yield noise


class OwnConv(nn.Conv1d):
    def _conv_forward(self, x, weight, bias):
        return noise(x)


class Decorated(nn.Module):
    @torch.no_grad()
    def forward(self, x):
        return noise(x)


class Static(nn.Module):
    forward = functools.partialmethod(lambda self, x: noise(x))


class Callable:
    __code__ = nn.Tanh.forward.__code__

    def __call__(self, x):
        return noise(x)


def made(forward, **attributes):
    module = type("Made", (nn.Module,), {"forward": forward})()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def _inner_import(self, x):
    import random as abs

    return x * abs.random()


def _keyword(self, x, *, act=noise):
    return act(x)


_LAW = Mixin()


def _default(self, x, law=_LAW):
    return x + law.mean()


def _decorating(self, x, act=noise):
    @act
    def result():
        return x

    return result


def _class(self, x):
    class relu(nn.Dropout):
        pass

    return relu()(x)


def _nested(self, x):
    def relu(y):
        return noise(y)

    return relu(x)


def _globals(self, x):
    return globals()["noise"](x)


def _closure():
    relu = noise
    return lambda self, x: relu(x)


def _later(self, x):
    return cosh(x)  # noqa: F821  a global that is defined only after the proof


def _hook(module, *args):
    return args[-1] + torch.rand(3) if len(args) == 2 else (args[0][0] + torch.rand(3),)


def _hooked(register):
    module = nn.Linear(3, 3)
    getattr(module, register)(_hook)
    return module


def _assigned(name, value, module=None):
    module = module or nn.Linear(3, 3)
    vars(module)[name] = value
    return module


DRAWING = {
    "helper": lambda: made(lambda self, x: noise(x)),
    "alias of a draw": lambda: made(lambda self, x: x + tanh(3)),
    "alias of a builtin's name": lambda: made(lambda self, x: x + zip(3)),
    "getattr": lambda: made(lambda self, x: x + getattr(torch, "ra" + "nd")(3)),
    "eval": lambda: made(lambda self, x: x + eval("torch.rand(3)")),
    "import": lambda: made(lambda self, x: x + __import__("torch").rand(3)),
    "vars": lambda: made(lambda self, x: x + vars(torch)["ra" + "nd"](3)),
    "dict": lambda: made(lambda self, x: x + torch.__dict__["ra" + "nd"](3)),
    "getattribute by name": lambda: made(lambda self, x: x.__getattribute__("normal" + "_")()),
    "globals": lambda: made(_globals),
    "global of later": lambda: made(_later),
    "default": lambda: made(lambda self, x, act=noise: act(x)),
    "default with a method": lambda: made(_default),
    "keyword default": lambda: made(_keyword),
    "decorator": lambda: made(_decorating),
    "class inside": lambda: made(_class),
    "function inside": lambda: made(_nested),
    "lambda inside": lambda: made(lambda self, x: (lambda y: noise(y))(x)),
    "comprehension": lambda: made(lambda self, x: torch.stack([noise(row) for row in x])),
    "import inside": lambda: made(_inner_import),
    "closure": lambda: made(_closure()),
    "decorated": Decorated,
    "partial method": Static,
    "callable with a harmless code": lambda: made(Callable()),
    "attribute": lambda: made(lambda self, x: self.tanh(x), tanh=noise),
    "attribute in a list": lambda: made(lambda self, x: self.sum[0](x), sum=[noise]),
    "attribute in a tuple": lambda: made(lambda self, x: self.sum[0](x), sum=(noise,)),
    "class attribute": lambda: made(lambda self, x: type(self).mean(x)),
    "number with operators": lambda: made(lambda self, x: x * self.scale, scale=Wild(2.0)),
    "tensor subclass": lambda: made(lambda self, x: x * self.data, data=torch.ones(3).as_subclass(Scaled)),
    "method of a base": Inherited,
    "property": Property,
    "property of a base": InheritedProperty,
    "method of a child": OfChild,
    "function of a child": ChildsFunction,
    "layer named as a draw": NamedAsDraw,
    "layer named as a class": NamedAsModule,
    "__call__": lambda: Called(3, 3),
    "_call_impl": lambda: CallImpl(3, 3),
    "__getattr__": Getattr,
    "__getattribute__": Getattribute,
    "super": Super,
    "__iter__": lambda: Iterating(nn.Tanh()),
    "method of a layer": lambda: OwnConv(1, 1, 1),
    "forward of the instance": lambda: _assigned("forward", noise),
    "method of the instance": lambda: _assigned("_conv_forward", lambda x, w, b: noise(x), nn.Conv1d(1, 1, 1)),
    "forward hook": lambda: _hooked("register_forward_hook"),
    "pre-hook": lambda: _hooked("register_forward_pre_hook"),
    "loss with a distance": lambda: nn.TripletMarginWithDistanceLoss(distance_function=lambda a, b: a + torch.rand(3)),
    "dropout": nn.Dropout,
    "rrelu": nn.RReLU,
    "fractional": lambda: nn.FractionalMaxPool2d(2, 2),
    "attention": lambda: nn.MultiheadAttention(4, 2, dropout=0.1),
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8),
    "lstm": lambda: nn.LSTM(3, 3, 2, dropout=0.1),
    "sparse dropout deep inside": lambda: nn.Sequential(nn.Sequential(nn.Tanh(), nn.AlphaDropout())),
    "operator": lambda: made(lambda self, x: torch.ops.aten.rand_like(x)),
    "fill": lambda: made(lambda self, x: x.new_empty(3).normal_()),
    "init": lambda: made(lambda self, x: torch.nn.init.uniform_(x.clone())),
    "new layer": lambda: made(lambda self, x: nn.Linear(3, 3)(x)),
    "low rank": lambda: made(lambda self, x: torch.svd_lowrank(x, 2)[1]),
    "lobpcg": lambda: made(lambda self, x: torch.lobpcg(x.T @ x + torch.eye(3))[0]),
    "gamma": lambda: made(lambda self, x: torch._standard_gamma(x.abs())),
    "VF": lambda: made(lambda self, x: torch._VF.dropout(x, 0.5, True)),
    "distributions": lambda: made(lambda self, x: torch.distributions.Laplace(x, 1.0).rsample()),
    "seed": lambda: made(lambda self, x: torch.manual_seed(0) and x),
    "vmap": lambda: made(lambda self, x: torch.vmap(torch.Tensor.exponential_, randomness="same")(x)),
    "map_": lambda: made(lambda self, x, f=noise: x.map_(x, f)),
    "cond": lambda: made(lambda self, x: torch.cond(True, self.mean, self.mean, (x,)), mean=noise),
    "from F": lambda: made(lambda self, x: F.torch.rand(3)),
    "exec": lambda: made(lambda self, x: exec("import torch; torch.rand(3)")),
}


@pytest.mark.parametrize("name", DRAWING)
def test_a_module_that_draws_is_never_proven(name):
    assert not never_draws(DRAWING[name]())


@pytest.mark.parametrize(
    "name",
    ["alias of a draw", "getattr", "default", "method of a child", "layer named as a draw", "__iter__"],
)
def test_an_unproven_module_is_guarded(name):
    net = tp.functional(DRAWING[name]())
    before = torch.get_rng_state()
    with pytest.raises(ImpureError, match="draws random numbers"):
        net(net.params, X)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("how", ["position", "keyword", "default"])
def test_a_function_given_as_an_input_is_guarded(how):
    net = tp.functional(made((lambda self, x, f=torch.tanh: f(x)) if how == "default" else (lambda self, x, f: f(x))))
    calls = {
        "position": lambda: net({}, X, torch.rand_like),
        "keyword": lambda: net({}, X, f=torch.rand_like),
        "default": lambda: net({}, X, torch.rand_like),
    }
    with pytest.raises(ImpureError, match="`rand_like`"):
        calls[how]()


def test_a_drawing_tensor_subclass_given_as_an_input_is_guarded():
    net = tp.functional(nn.Linear(3, 3))
    before = torch.get_rng_state()
    with pytest.raises(ImpureError, match="draws random numbers"):
        net(net.params, X.as_subclass(Scaled))
    assert torch.equal(torch.get_rng_state(), before)


class Simple(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x):
        return self.network(x.reshape(-1, 1)).squeeze()


class Usual(nn.Module):
    """A forward with the usual operations."""

    eps = 1e-6

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.scale, self.shift = nn.Parameter(torch.ones(3)), 0.5
        self.register_buffer("offset", torch.zeros(3))

    def forward(self, x):
        if x.shape[-1] != 3:
            raise ValueError(f"wanted 3 features, got {x.shape}")
        h = F.relu(self.layers[0](x)) + torch.tanh(self.layers[1](x)) * self.scale + self.offset
        if self.training:
            h = h + math.sqrt(self.shift)
        return torch.cat([h, x], dim=-1) / (h.std(dim=-1, keepdim=True) + self.eps)


class Named(nn.Sequential):
    """A layer that contains layers, as model libraries write it."""

    def __init__(self, width):
        super().__init__(nn.Linear(width, width), nn.ReLU())


class Looping(nn.Module):
    """Comprehensions, loops over places, keywords, unpacking: what differs in the bytecode of each Python."""

    def __init__(self):
        super().__init__()
        self.layers, self.last = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]), nn.Linear(3, 3)

    def forward(self, x, *, scale=None):
        rows = torch.stack([self.last(row) for row in x.unbind(0)], dim=0)
        for i in range(2):
            rows = self.layers[i](rows) if i else +rows
        first, *others = rows.unbind(0)
        if rows.ndim != 2 or (scale is None and x is None):
            raise ValueError(f"{x.shape!r:>4}")
        sizes = {"one": first.shape[0:1], **{str(i): row.shape for i, row in enumerate(others)}}
        return torch.cat((rows, x), dim=len(sizes) - 3)


PROVEN = {
    "simple": Simple,
    "sequential": lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Sequential(nn.LayerNorm(3), nn.GELU())),
    "usual": Usual,
    "looping": Looping,
    "named": lambda: Named(3),
    "convolution": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten()),
    "embedding": lambda: nn.Embedding(3, 3),
}


@pytest.mark.parametrize("name", PROVEN)
def test_a_module_that_cannot_draw_is_proven(name):
    assert never_draws(PROVEN[name]())
    assert tp.functional(PROVEN[name]()).call.args[0].never_draws


CHANGING = {
    "in place": lambda: made(lambda self, x: x * self.scale.clamp_(0, 1), scale=nn.Parameter(torch.ones(3))),
    "embedding with a norm": lambda: nn.Embedding(3, 3, max_norm=1.0),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_module_that_changes_a_parameter_is_not_proven(name):
    assert not never_draws(CHANGING[name]())

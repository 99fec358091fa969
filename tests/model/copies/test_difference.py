"""What makes two modules run different code: the members of an ensemble must not."""

import re
from functools import partial

import pytest
import torch
from models import MODELS
from torch import nn
from torch.nn.utils import parametrizations

import torchpure as tp
from torchpure.errors import StructureError
from torchpure.model.copies import first_difference

X = torch.ones(2, 4)


class Up(nn.Linear):
    pass


class Down(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


class Scaled(nn.Module):
    def __init__(self, act=torch.tanh, **options):
        super().__init__()
        self.layer, self.act, self.options = nn.Linear(4, 4), act, options

    def forward(self, x):
        return self.act(self.layer(x))


class Settings:
    def __init__(self, scale):
        self.scale = scale


def _times(factor):
    return lambda x: factor * x


def _hooked(hook):
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(hook)
    return layer


def _frozen():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))
    net[1].eval()
    return net


DIFFERENT = {
    "class": (Up(4, 4), Down(4, 4), f"the module is a {__name__}.Down, wanted a {__name__}.Up"),
    "class inside": (nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "`1` is a torch.nn.modules.activation.ReLU, wanted a torch.nn.modules.activation.Tanh"),
    "number": (nn.Sequential(nn.Dropout(0.1)), nn.Sequential(nn.Dropout(0.2)), "`0.p` is 0.2, wanted 0.1"),
    "epsilon": (nn.LayerNorm(4, 1e-5), nn.LayerNorm(4, 1e-3), "`eps` is 0.001, wanted 1e-05"),
    "mode": (nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4)).eval(), "the module is in eval mode, wanted train mode"),
    "mode inside": (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)), _frozen(), "`1` is in eval mode, wanted train mode"),
    "activation": (Scaled(torch.tanh), Scaled(torch.relu), "`act` is <built-in method relu"),
    "function of torch": (nn.TransformerEncoderLayer(4, 2, activation="relu"), nn.TransformerEncoderLayer(4, 2, activation="gelu"), "`activation"),
    "lambda": (Scaled(lambda x: x), Scaled(lambda x: -x), "`act` is <function"),
    "closure": (Scaled(_times(2)), Scaled(_times(3)), "`act` is <function"),
    "partial": (Scaled(partial(torch.clamp, min=0)), Scaled(partial(torch.clamp, min=1)), "`act` is functools.partial"),
    "container": (Scaled(sizes=[1, 2]), Scaled(sizes=[1, 3]), "`options` is {'sizes': [1, 3]}, wanted {'sizes': [1, 2]}"),
    "object": (Scaled(it=Settings(1)), Scaled(it=Settings(2)), "`options`"),
    "tensor": (Scaled(it=torch.zeros(2)), Scaled(it=torch.ones(2)), "`options`"),
    "hook": (_hooked(lambda *_: None), _hooked(lambda _, __, out: -out), "the module has other hooks in `_forward_hooks`"),
    "no hook": (nn.Linear(4, 4), _hooked(lambda _, __, out: -out), "the module has other hooks in `_forward_hooks`"),
    "submodule": (nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "`1` is not in the first"),
    "parametrization": (parametrizations.orthogonal(nn.Linear(4, 4)), parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley"), "`parametrizations.weight.0.orthogonal_map`"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_an_ensemble_of_different_modules_is_refused(name):
    one, two, message = DIFFERENT[name]
    with pytest.raises(StructureError, match=re.escape("ensemble: member 1 differs from member 0: " + message)):
        tp.ensemble([one, two])
    with pytest.raises(StructureError, match=re.escape("ensemble: member 2 differs from member 0: " + message)):
        tp.ensemble([tp.functional(one), one, tp.functional(two)])


ALIKE = {
    **{name: model.make for name, model in MODELS.items()},
    "lambda": lambda: Scaled(lambda x: x * 2),
    "closure": lambda: Scaled(_times(torch.ones(2))),
    "object": lambda: Scaled(it=Settings(float("nan"))),
    "hook": lambda: _hooked(lambda _, __, out: -out),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "lstm": lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True),
    "transformer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, batch_first=True), 2),
}


@pytest.mark.parametrize("name", ALIKE)
def test_two_modules_of_one_kind_do_not_differ(name):
    one, two = ALIKE[name](), ALIKE[name]()
    assert first_difference(one, two) is None
    if not any(map(torch.nn.parameter.is_lazy, one.parameters())):
        tp.ensemble([one, two])


def test_ensembles_of_ensembles_are_compared():
    up, down = tp.ensemble([Up(4, 4), Up(4, 4)]), tp.ensemble([Down(4, 4), Down(4, 4)])
    with pytest.raises(StructureError, match=f"member 1 differs from member 0: `0` is a {__name__}.Down"):
        tp.ensemble([up, down])
    assert tp.ensemble([up, tp.ensemble([Up(4, 4), Up(4, 4)])]).params["weight"].shape == (2, 2, 4, 4)

"""The table of modules that every law of `testing.check_model` runs over: add a line for each new kind."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize


class Model(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple]
    factory: bool = False  # True: make the net from the factory, for modules without reset_parameters
    dtype: torch.dtype = torch.float64
    skip: tuple[str, ...] = ()  # laws that the module breaks by torch's own definition


def _values(*shape, dtype=torch.float64, scale=1.0):
    size = int(torch.tensor(shape).prod()) if shape else 1
    return (scale * torch.sin(torch.arange(1, size + 1, dtype=torch.float64) * 1.7)).reshape(shape).to(dtype)


def _rows():
    return (_values(4, 6),)


def _sequence():
    return (_values(5, 3, 4),)


def _pair():
    return _values(5, 3, 4), _values(4, 3, 4, scale=0.7)


def _image():
    return (_values(2, 3, 8, 8),)


def _words():
    return (torch.tensor([[1, 2, 5], [3, 2, 0]]),)


def _packed():
    rows = nn.utils.rnn.pack_padded_sequence(_values(5, 3, 4), [5, 4, 2])
    return (rows,)


class Residual(nn.Module):
    """A forward that torch.nn.Sequential cannot express: a skip, a functional dropout, a draw."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        h = F.dropout(torch.tanh(self.first(x)), 0.3, self.training)
        return x + self.second(h + 0.1 * torch.randn_like(h))


class StochasticDepth(nn.Module):
    """Drops the branch of whole rows (Huang et al. 2016), written as in vision libraries."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Linear(6, 6)

    def forward(self, x):
        keep = x.new_empty((x.shape[0], 1)).bernoulli_(0.7)
        return x + self.branch(x) * keep.div_(0.7)


class Variational(nn.Module):
    """An autoencoder that samples with torch.distributions."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x):
        mean, spread = self.encode(x).chunk(2, -1)
        code = torch.distributions.Normal(mean, F.softplus(spread), validate_args=False).rsample()
        noise = torch.distributions.Uniform(-0.1, 0.1, validate_args=False).sample(x.shape)
        return self.decode(code) + noise


class Router(nn.Module):
    """A mixture of experts that draws the expert."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 2) for _ in range(3))

    def forward(self, x):
        choice = F.gumbel_softmax(self.gate(x), tau=0.7)
        return sum(choice[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Average(nn.Module):
    """Keeps an exponential average of its inputs and counts its calls, in place and by assignment."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0) + 0.01 * self.layer.weight.detach().mean(0))
        self.calls = self.calls + 1
        return self.layer(x - self.mean)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.words.weight

    def forward(self, words):
        return self.out(torch.tanh(self.words(words)))


class Learned(nn.Module):
    """Has parameters that its constructor draws, so only a factory can initialise them again."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(4, 6) * 0.02)
        self.scale = nn.Parameter(nn.init.trunc_normal_(torch.empty(6), std=0.5))
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.layer = nn.Linear(6, 2)
        nn.init.orthogonal_(self.layer.weight)

    def forward(self, x):
        return self.layer((x + self.positions) * self.scale * self.frozen)


class Checked(nn.Module):
    """Holds attributes that are no tensors, and hooks."""

    def __init__(self):
        super().__init__()
        self.layer, self.names, self.seen = nn.Linear(6, 2), {"scale": 2.0}, []
        self.layer.register_forward_hook(_double)

    def forward(self, x):
        self.seen.append(len(x))
        return self.layer(x) * self.names["scale"] / len(self.seen[-1:])


def _double(module, args, output):
    return 2 * output


class Lengths(nn.Module):
    """A recurrent layer on rows of several lengths."""

    def __init__(self, kind):
        super().__init__()
        self.layer = kind

    def forward(self, data):
        output, hidden = self.layer(data)
        return output.data, hidden


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x):
        return x.triu()


class Attention(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.mix, self.dropout = nn.Linear(4, 12), dropout

    def forward(self, x):
        q, k, v = self.mix(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout, is_causal=True)


def _wrapped(wrap, layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older of torch's two ways to normalise weights is deprecated
        return wrap(layer)


def _after_a_dry_run():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules warn that they may change
        module = nn.Sequential(nn.LazyLinear(3), nn.Tanh(), nn.LazyLinear(2)).double()
    module(*_rows())
    return module


def _transformer(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it does not use nested tensors
        return nn.Transformer(4, 2, 1, 1, 6, **options)


# torch computes the gradient as if the scaled rows were the weight
RENORMALISED = ("gradients_are_finite_differences",)
# its step sizes are tensors, and a trace cannot convert these to numbers
SIZES = ("traced_equals_eager",)
# the module itself detaches a part of the computation
DETACHED = ("gradients_are_finite_differences",)

MODELS: dict[str, Model] = {
    "linear": Model(lambda: nn.Linear(6, 3), _rows),
    "mlp": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), _rows),
    "bilinear": Model(lambda: nn.Bilinear(6, 6, 2), lambda: (*_rows(), _values(4, 6, scale=0.5))),
    "inplace activation": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.SiLU(inplace=True)), _rows),
    "prelu": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.PReLU(4)), _rows),
    "conv1d": Model(lambda: nn.Conv1d(4, 2, 2, groups=2), lambda: (_values(2, 4, 5),)),
    "conv2d": Model(lambda: nn.Conv2d(3, 2, 3, stride=2, padding=1), _image),
    "conv3d": Model(lambda: nn.Conv3d(2, 2, 2), lambda: (_values(1, 2, 3, 3, 3),)),
    "transposed conv": Model(lambda: nn.ConvTranspose2d(3, 2, 3, stride=2), _image),
    "conv net": Model(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 2)
        ),
        _image,
    ),
    "pools": Model(
        lambda: nn.Sequential(
            nn.Conv2d(3, 2, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Upsample(scale_factor=2)
        ),
        _image,
    ),
    "fractional pool": Model(
        lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.FractionalMaxPool2d(2, output_size=5)), _image
    ),
    "batch norm": Model(lambda: nn.BatchNorm1d(6), _rows),
    "batch norm in evaluation": Model(lambda: nn.BatchNorm1d(6).eval(), _rows),
    "cumulative batch norm": Model(lambda: nn.BatchNorm2d(3, momentum=None), _image),
    "batch norm without state": Model(lambda: nn.BatchNorm1d(6, track_running_stats=False), _rows),
    "synchronised batch norm": Model(lambda: nn.SyncBatchNorm(6), _rows),
    "instance norm": Model(lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), _image),
    "group norm": Model(lambda: nn.GroupNorm(2, 6), _rows),
    "layer norm": Model(lambda: nn.LayerNorm(6), _rows),
    "rms norm": Model(lambda: nn.RMSNorm(6), _rows),
    "dropout": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.4), nn.Linear(4, 2)), _rows),
    "dropout in place": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.4, inplace=True)), _rows),
    "dropout in evaluation": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.4)).eval(), _rows),
    "dropout1d": Model(lambda: nn.Sequential(nn.Conv1d(4, 3, 1), nn.Dropout1d(0.4)), lambda: (_values(2, 4, 5),)),
    "dropout2d": Model(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.4)), _image),
    "dropout3d": Model(lambda: nn.Sequential(nn.Conv3d(2, 4, 1), nn.Dropout3d(0.4)), lambda: (_values(1, 2, 2, 2, 2),)),
    "alpha dropout": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.SELU(), nn.AlphaDropout(0.4)), _rows),
    "feature alpha dropout": Model(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.FeatureAlphaDropout(0.4)), _image),
    "random relu": Model(lambda: nn.Sequential(nn.Linear(6, 4), nn.RReLU()), _rows),
    "embedding": Model(lambda: nn.Embedding(7, 3, padding_idx=6), _words),
    "limited embedding": Model(lambda: nn.Embedding(7, 3, max_norm=1.0), _words, skip=RENORMALISED),
    "embedding bag": Model(lambda: nn.EmbeddingBag(7, 3, padding_idx=2), _words),
    "limited embedding bag": Model(
        lambda: nn.EmbeddingBag(7, 3, max_norm=1.0, mode="sum"),
        lambda: (torch.tensor([1, 2, 5, 4, 3]), torch.tensor([0, 2])),
        skip=RENORMALISED,
    ),
    "rnn": Model(lambda: nn.RNN(4, 3, 2, nonlinearity="relu"), _sequence),
    "gru": Model(lambda: nn.GRU(4, 3, 2, dropout=0.5), _sequence),
    "lstm": Model(lambda: nn.LSTM(4, 3), _sequence),
    "deep lstm": Model(
        lambda: nn.LSTM(4, 3, 2, dropout=0.5, bidirectional=True, proj_size=2, batch_first=True), _sequence
    ),
    "packed lstm": Model(lambda: Lengths(nn.LSTM(4, 3, 2, bidirectional=True, bias=False)), _packed, skip=SIZES),
    "packed gru": Model(lambda: Lengths(nn.GRU(4, 3, 2, dropout=0.5)), _packed, skip=SIZES),
    "cells": Model(lambda: nn.LSTMCell(6, 3), _rows),
    "gru cell": Model(lambda: nn.GRUCell(6, 3), _rows),
    "multi-head attention": Model(lambda: nn.MultiheadAttention(4, 2), lambda: (*_pair(), _pair()[1])),
    "multi-head attention with dropout": Model(
        lambda: nn.MultiheadAttention(4, 2, dropout=0.4, add_bias_kv=True), lambda: (*_pair(), _pair()[1])
    ),
    "attention": Model(lambda: Attention(0.0), _sequence),
    "attention with dropout": Model(lambda: Attention(0.3), _sequence),
    "transformer": Model(lambda: _transformer(dropout=0.2, norm_first=True), _pair),
    "transformer in evaluation": Model(lambda: _transformer().eval(), _pair),
    "weight norm": Model(lambda: parametrizations.weight_norm(nn.Linear(6, 3)), _rows),
    "older weight norm": Model(lambda: _wrapped(nn.utils.weight_norm, nn.Linear(6, 3)), _rows, factory=True),
    "orthogonal": Model(lambda: parametrizations.orthogonal(nn.Linear(6, 3), orthogonal_map="cayley"), _rows),
    "spectral norm": Model(lambda: parametrizations.spectral_norm(nn.Linear(6, 3)), _rows, skip=DETACHED),
    "older spectral norm": Model(lambda: nn.utils.spectral_norm(nn.Linear(6, 3)), _rows, factory=True, skip=DETACHED),
    "own parametrization": Model(
        lambda: parametrize.register_parametrization(nn.Linear(6, 6), "weight", Symmetric()), _rows
    ),
    "adaptive softmax": Model(
        lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 10, [4]), lambda: (*_rows(), torch.tensor([1, 5, 3, 9]))
    ),
    "complex": Model(
        lambda: nn.Linear(6, 3, dtype=torch.complex128),
        lambda: (torch.complex(_values(4, 6), _values(4, 6, scale=0.3)),),
        dtype=torch.complex128,
    ),
    "bfloat16": Model(
        lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.3), nn.LayerNorm(4)),
        lambda: (_values(4, 6, dtype=torch.bfloat16),),
        dtype=torch.bfloat16,
    ),
    "lazy": Model(_after_a_dry_run, _rows),
    "tied": Model(Tied, _words),
    "draws of its own": Model(Residual, _rows),
    "stochastic depth": Model(StochasticDepth, _rows),
    "variational": Model(Variational, _rows),
    "router": Model(Router, _rows),
    "running average": Model(Average, _rows, skip=DETACHED),
    "drawn parameters": Model(Learned, _rows, factory=True),
    "python state and hooks": Model(Checked, _rows),
}


def net_of(functional: Callable[..., Any], model: Model) -> Any:
    """Make the net of a row, in its dtype."""

    def made() -> nn.Module:
        module = model.make()
        return module if model.dtype.is_complex else module.to(model.dtype)

    net = functional(made)  # values come from a key, so every run tests the same numbers
    return net if model.factory else functional(net.to_module())

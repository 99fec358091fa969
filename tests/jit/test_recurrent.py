"""Recurrent layers in programs: loops, or torch's kernel, that equal the layers."""

import pytest
import torch
from daily import without
from torch import nn
from torch.func import functional_call

import torchpure as tp
from torchpure import tree

LAYERS = {
    "lstm": (nn.LSTM, {}),
    "lstm, layers, both directions": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lstm without bias": (nn.LSTM, {"bias": False}),
    "lstm with projection": (nn.LSTM, {"proj_size": 3, "bidirectional": True}),
    "gru": (nn.GRU, {"num_layers": 2, "batch_first": True}),
    "rnn": (nn.RNN, {"nonlinearity": "relu", "bidirectional": True, "bias": False}),
}


def _case(name, dtype=torch.float32):
    kind, options = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    layer = kind(5, 4, **options).to(dtype)
    params = {k: torch.rand(v.shape, generator=generator, dtype=dtype) - 0.5 for k, v in layer.named_parameters()}
    x = torch.rand(6, 3, 5, generator=generator, dtype=dtype)
    states = layer.num_layers * (2 if layer.bidirectional else 1)
    batch = x.shape[0] if layer.batch_first else x.shape[1]
    hidden = torch.rand(states, batch, layer.proj_size or 4, generator=generator, dtype=dtype)
    cell = torch.rand(states, batch, 4, generator=generator, dtype=dtype)
    start = (hidden, cell) if kind is nn.LSTM else hidden
    return layer, params, x, start


def _compare(fn, *args):
    fast = tp.jit(fn)
    assert fast.lower(*args).backend == "native"
    expected = fn(*args)
    for one, two in zip(tree.leaves(fast(*args)), tree.leaves(expected), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        assert one.stride() == two.stride()


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", without(["lstm", "lstm without bias"], LAYERS))
def test_a_recurrent_layer_in_a_program_computes_what_the_layer_computes(name):
    layer, params, x, start = _case(name)

    def loss(params, x, start):
        out, end = functional_call(layer, params, (x, start))
        return (out**2).sum() + sum(part.sin().sum() for part in tree.leaves(end))

    def both(params, x, start):
        return functional_call(layer, params, (x, start)), tp.grad(loss, (0, 1, 2))(params, x, start)

    _compare(both, params, x, start)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_recurrent_layer_without_a_start_and_in_double_precision(name):
    layer, params, x, _ = _case(name, torch.float64)
    _compare(tp.grad(lambda params: functional_call(layer, params, (x,))[0].sum()), params)


@pytest.mark.compile
def test_an_lstm_under_other_transforms():
    layer, params, x, _ = _case("lstm")

    def loss(params, x):
        return (functional_call(layer, params, (x,))[0] ** 2).sum()

    _compare(tp.vmap(tp.grad(loss), in_dims=(None, 0)), params, torch.stack([x[:2], x[2:4]]))
    _compare(lambda p, x: tp.jvp(lambda x: loss(p, x), (x,), (torch.ones_like(x),)), params, x[:2])
    _compare(tp.grad(lambda x, p: tp.grad(loss, 1)(p, x).sum()), x[:2], params)

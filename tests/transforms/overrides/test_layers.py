"""The values of IN_TRANSFORM rules equal those of torch's operations."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import torchpure as tp
from torchpure.model.draws import _keyed_layers
from torchpure.transforms.overrides import IN_TRANSFORM, _attention, _layers

D = torch.float64


def _values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def _close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


class _EveryRule(torch.overrides.TorchFunctionMode):
    """Runs the IN_TRANSFORM rules outside of transforms too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return IN_TRANSFORM.get(func, func)(*args, **(kwargs or {}))


RECURRENT = list(
    itertools.product(
        [nn.LSTM, nn.GRU, nn.RNN],
        [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}, {"batch_first": True, "num_layers": 2}],
        [False, True],
    )
)
RECURRENT += [(nn.LSTM, {"proj_size": 2, "bidirectional": True}, packed) for packed in (False, True)]
RECURRENT += [(nn.RNN, {"nonlinearity": "relu"}, False)]


@pytest.mark.parametrize(("kind", "options", "packed"), RECURRENT)
def test_recurrent_layers(kind, options, packed):
    torch.manual_seed(0)
    layer, x = kind(4, 3, **options).double(), _values(5, 3, 4)
    lengths = [5, 3, 3] if options.get("batch_first") is None else [5, 4, 3, 2, 1]
    first = bool(options.get("batch_first"))
    data = pack_padded_sequence(x, [min(n, 3 if first else 5) for n in lengths], first) if packed else x
    expected = layer(data)
    with _EveryRule():
        got = layer(data)
    for one, two in zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True):
        _close(one, two)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_cells(kind, bias):
    cell, x = kind(4, 3, bias=bias).double(), _values(2, 4)
    with _EveryRule():
        got = cell(x)
    _close(got, cell(x))


def test_recurrent_functions_by_keyword():
    x, state = _values(2, 4), (_values(2, 3), _values(2, 3, seed=1))
    w_ih, w_hh, bias = _values(12, 4), _values(12, 3, seed=2), _values(12, seed=3)
    for options in ({}, {"b_ih": bias}, {"b_hh": bias}, {"b_ih": bias, "b_hh": bias}):
        given = {"hx": state, "w_ih": w_ih, "w_hh": w_hh, **options}
        with _EveryRule():
            got = torch.lstm_cell(x, **given)
        for one, two in zip(got, torch.lstm_cell(x, **given), strict=True):
            _close(one, two)
    given = {"has_biases": False, "num_layers": 1, "dropout": 0.0, "train": False, "bidirectional": False}
    hx, rows = [part[None] for part in state], torch.tensor([2])
    with _EveryRule():
        whole = torch.lstm(input=x[None], hx=hx, params=[w_ih, w_hh], batch_first=False, **given)
        packed = torch.lstm(x, rows, hx, params=[w_ih, w_hh], **given)
    for one, two in zip(whole, torch.lstm(x[None], hx, [w_ih, w_hh], batch_first=False, **given), strict=True):
        _close(one, two)
    for one, two in zip(packed, torch.lstm(x, rows, hx, [w_ih, w_hh], **given), strict=True):
        _close(one, two)


ATTENTION = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "additive mask": {"attn_mask": _values(5, 5)},
    "boolean mask": {"attn_mask": torch.arange(5) != torch.arange(5).unsqueeze(1)},
    "row that sees nothing": {"attn_mask": (torch.arange(5) > 1).unsqueeze(1).expand(5, 5)},
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    q, k, v = _values(3, 2, 4, 5, 6)
    _close(_attention.attention(q, k, v, **ATTENTION[name]), F.scaled_dot_product_attention(q, k, v, **ATTENTION[name]))


def test_attention_with_shared_heads():
    q, k, v = _values(2, 4, 5, 6), _values(2, 2, 5, 6, seed=1), _values(2, 2, 5, 6, seed=2)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    _close(_attention.attention(q, k, v, enable_gqa=True), expected)
    dropped = _keyed_layers.scaled_dot_product_attention(
        lambda: torch.tensor([1, 2]), q, k, v, None, 1e-12, enable_gqa=True
    )
    _close(dropped, expected)


BAGS = {
    "mean": {},
    "sum": {"mode": "sum"},
    "max": {"mode": "max"},
    "padding": {"padding_idx": 1},
    "padding from the end": {"padding_idx": -5},
    "max with padding": {"mode": "max", "padding_idx": 1},
    "weights": {"mode": "sum", "per_sample_weights": _values(5, seed=3)},
    "last offset": {"include_last_offset": True, "offsets": torch.tensor([0, 2, 5])},
}


@pytest.mark.parametrize("name", BAGS)
def test_embedding_bags(name):
    weight, words = _values(6, 3), torch.tensor([1, 4, 1, 1, 5])
    options = {"offsets": torch.tensor([0, 2, 2]), **BAGS[name]}
    _close(_layers.embedding_bag(words, weight, **options), F.embedding_bag(words, weight, **options))
    if "per_sample_weights" not in options and "include_last_offset" not in options:
        rows = torch.tensor([[1, 2], [3, 1]])
        options.pop("offsets")
        _close(_layers.embedding_bag(rows, weight, **options), F.embedding_bag(rows, weight, **options))


def test_embedding_bags_of_nothing():
    weight, nothing = _values(6, 3), torch.tensor([], dtype=torch.int64)
    for mode in ("sum", "mean", "max"):
        options = {"offsets": torch.tensor([0, 0]), "mode": mode}
        _close(_layers.embedding_bag(nothing, weight, **options), F.embedding_bag(nothing, weight, **options))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no rule for vmap, and loops
def test_gradients_by_frequency_are_those_of_torch():
    def loss(weight):
        return F.embedding_bag(torch.tensor([[1, 1, 2]]), weight, scale_grad_by_freq=True, mode="sum").sum()

    weight = _values(6, 3)
    _close(tp.vmap(tp.grad(loss))(weight[None])[0], tp.grad(loss)(weight))


REFUSED = {
    "weights of another shape": lambda x: F.embedding_bag(
        torch.tensor([0, 1]), x, torch.tensor([0]), mode="sum", per_sample_weights=x[:1, 0]
    ),
    "words that are not whole": lambda x: F.embedding_bag(torch.tensor([0.0, 1.0]), x, torch.tensor([0])),
    "too few indices": lambda x: x.clone().index_copy_(0, torch.tensor([1]), x[:2]),
    "narrow slices": lambda x: x.clone().index_copy_(0, torch.tensor([1]), x[:1, :2]),
    "slices of another dtype": lambda x: x.clone().index_copy_(0, torch.tensor([1]), x[:1].float()),
    "a place beyond the end": lambda x: torch.select_scatter(x, x[0], 0, 7),
    "an unknown reduction": lambda x: F.gaussian_nll_loss(x, x, 1.0, reduction="bad"),
    "no output size": lambda x: F.fractional_max_pool2d(x[None], 2, _random_samples=x.new_zeros(1, 1, 2)),
    "a window that does not fit": lambda x: F.fractional_max_pool2d(
        x[None], (2, 5), output_size=1, _random_samples=x.new_zeros(1, 1, 2)
    ),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_refuses_is_refused(name):
    x = _values(3, 4)
    with pytest.raises((RuntimeError, ValueError, IndexError)) as expected:
        REFUSED[name](x)
    with pytest.raises(expected.type) as got:
        tp.vmap(REFUSED[name])(x[None])
    assert name == "a place beyond the end" or str(got.value)[:40] == str(expected.value)[:40]


BY_NAME = {
    "vector_norm, axis": lambda x: torch.linalg.vector_norm(x, axis=0, keepdims=True),
    "norm, axis": lambda x: torch.linalg.norm(x, 3, axis=0),
    "det": lambda x: torch.det(input=x),
    "linalg.det": lambda x: torch.linalg.det(A=x),
    "slogdet": lambda x: torch.slogdet(input=x)[1],
    "logdet": lambda x: torch.logdet(input=x @ x.T),
    "cholesky_inverse": lambda x: torch.cholesky_inverse(input=x),
    "prelu": lambda x: torch.prelu(input=x, weight=x[0, :1]),
    "select_scatter": lambda x: torch.select_scatter(input=x.float(), src=x[0], dim=0, index=-1),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_arguments_have_the_names_that_torch_gives_them(name):
    x = _values(3, 3)
    _close(tp.jvp(BY_NAME[name], (x,), (x,))[0], BY_NAME[name](x))
    _close(tp.vmap(BY_NAME[name])(x[None])[0], BY_NAME[name](x))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_norm(dim):
    v = _values(3, 4)
    g = torch.norm_except_dim(v, 2, dim)
    _close(_layers.norm_except_dim(v, 2, dim), g)
    _close(_layers.weight_norm(v, g * 1.5, dim), torch._weight_norm(v, g * 1.5, dim))


@pytest.mark.parametrize("out", [(1, 1), (3, 4), 5])
def test_fractional_pools(out):
    x, samples = _values(2, 3, 9, 8), torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1), dtype=D)
    options = {"output_size": out, "return_indices": True, "_random_samples": samples}
    got = _layers.fractional_max_pool(2)(x, (2, 3), **options)
    for one, two in zip(got, F.fractional_max_pool2d(x, (2, 3), **options), strict=True):
        _close(one, two)


@pytest.mark.parametrize("batched", [True, False])
def test_fractional_pools_in_three_dimensions(batched):
    x, samples = _values(2, 3, 6, 7, 5), torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=D)
    x, samples = (x, samples) if batched else (x[0], samples[:1])
    options = {"output_ratio": (0.6, 0.5, 0.7), "_random_samples": samples}
    _close(_layers.fractional_max_pool(3)(x, 2, **options), F.fractional_max_pool3d(x, 2, **options))


def test_bilinear_and_index_copy():
    a, b, w = _values(4, 3), _values(4, 2, seed=1), _values(5, 3, 2, seed=2)
    _close(_layers.bilinear(a, b, w, w[:, 0, 0]), F.bilinear(a, b, w, w[:, 0, 0]))
    index, source = torch.tensor([2, 0]), _values(3, 2, seed=4)
    _close(_layers.index_copy_(a.T.clone(), 1, index, source), a.T.clone().index_copy_(1, index, source))
    number = torch.tensor(2)
    _close(_layers.index_copy_(a[0].clone(), 0, number, b[0, 0]), a[0].clone().index_copy_(0, number, b[0, 0]))

"""Masks of attention, one for each member of a vmap, in layers of torch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp

PAD = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]]).bool()  # True: no key
KEPT = (~PAD).unsqueeze(-1)
CAUSAL = nn.Transformer.generate_square_subsequent_mask(4)
MINUS = torch.zeros(3, 4).masked_fill(PAD, -torch.inf)


def _values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = _values(3, 4, 4)


def _stacked(function, count=3):
    return tp.tree.map(lambda *leaves: torch.stack(leaves), *map(function, range(count)))


def _by_autograd(module, loss):
    return dict(zip(dict(module.named_parameters()), torch.autograd.grad(loss, list(module.parameters())), strict=True))


def _encoder(train, **options):
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(
        4, 2, 8, dropout=0.0, batch_first=True, norm_first=options.pop("norm_first", False)
    )
    return nn.TransformerEncoder(layer, 2, **options).train(train)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"enable_nested_tensor": False}])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("mask", [PAD, MINUS])
def test_an_encoder_has_one_mask_for_each_member(mask, train, options):
    module = _encoder(train, **options)
    net = tp.functional(module)

    def run(p, x, mask):
        return net(p, x[None], src_key_padding_mask=mask[None])[0]

    def loss(p, x, mask, kept):
        return (run(p, x, mask) * kept).square().sum()

    def wanted(i):  # padded positions too
        return module(X[i : i + 1], src_key_padding_mask=mask[i : i + 1])[0]

    torch.testing.assert_close(tp.vmap(run, in_dims=(None, 0, 0))(net.params, X, mask), _stacked(wanted))
    torch.testing.assert_close(_stacked(lambda i: run(net.params, X[i], mask[i])), _stacked(wanted))
    torch.testing.assert_close(
        tp.vmap(lambda x, m: module(x[None], src_key_padding_mask=m[None])[0])(X, mask), _stacked(wanted)
    )
    torch.testing.assert_close(
        tp.vmap(tp.grad(loss), in_dims=(None, 0, 0, 0))(net.params, X, mask, KEPT),
        _stacked(lambda i: _by_autograd(module, (wanted(i) * KEPT[i]).square().sum())),
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_value_at_padded_positions_does_not_depend_on_the_transform():
    module = _encoder(False)
    net = tp.functional(module)

    def run(p):
        return net(p, X, src_key_padding_mask=PAD)

    wanted = module(X, src_key_padding_mask=PAD)
    assert (wanted[1, 2:] != 0).all()  # torch gives zeros where no parameter requires grad
    torch.testing.assert_close(run(net.params), wanted)
    torch.testing.assert_close(net.apply(net.params, net.state, X, src_key_padding_mask=PAD)[0], wanted)
    torch.testing.assert_close(tp.jvp(run, (net.params,), (net.params,))[0], wanted)
    torch.testing.assert_close(tp.jit(run)(net.params), wanted)
    with torch.no_grad():
        assert (net.to_module()(X, src_key_padding_mask=PAD)[1, 2:] == 0).all()  # the module is torch's own


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("first", [False, True])
def test_a_transformer_with_causal_and_padding_masks(first):
    torch.manual_seed(2)
    module = nn.Transformer(4, 2, 1, 1, 8, dropout=0.0, batch_first=first, norm_first=first)
    net = tp.functional(module)
    y = _values(3, 4, 4, seed=3)

    def call(model, x, y, pad):
        x, y = (x[None], y[None]) if first else (x[:, None], y[:, None])
        out = model(x, y, tgt_mask=CAUSAL, tgt_is_causal=True, src_key_padding_mask=pad, memory_key_padding_mask=pad)
        return out.square().sum()

    def loss(p, x, y, pad):
        return call(lambda *inputs, **options: net(p, *inputs, **options), x, y, pad[None])

    grads = _stacked(lambda i: _by_autograd(module, call(module, X[i], y[i], PAD[i : i + 1])))
    torch.testing.assert_close(tp.vmap(tp.grad(loss), in_dims=(None, 0, 0, 0))(net.params, X, y, PAD), grads)
    pushed = tp.jvp(lambda p: loss(p, X[0], y[0], PAD[0]), (net.params,), (net.params,))[1]
    torch.testing.assert_close(pushed, sum((grads[name][0] * p).sum() for name, p in net.params.items()))


MASKS = {
    "padding": {"key_padding_mask": PAD},
    "padding of floats": {"key_padding_mask": MINUS},
    "pairs": {"attn_mask": _values(3, 4, 4, seed=4)},
    "pairs of heads": {"attn_mask": _values(3, 2, 4, 4, seed=5) > 1},
    "both": {"key_padding_mask": PAD, "attn_mask": CAUSAL.isinf().expand(3, 4, 4)},
}


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_multi_head_attention_has_one_mask_for_each_member(name, weights):
    torch.manual_seed(3)
    module = nn.MultiheadAttention(4, 2, batch_first=True)
    net, masks = tp.functional(module), MASKS[name]

    def call(model, x, masks):
        return model(x, x, x, need_weights=weights, **masks)[0]

    def run(p, x, masks):
        return call(lambda *inputs, **options: net(p, *inputs, **options), x, masks)

    def wanted(i):
        return call(module, X[i], {name: mask[i] for name, mask in masks.items()})

    torch.testing.assert_close(tp.vmap(run, in_dims=(None, 0, 0))(net.params, X, masks), _stacked(wanted))
    grads = tp.vmap(tp.grad(lambda *args: run(*args).square().sum()), in_dims=(None, 0, 0))(net.params, X, masks)
    torch.testing.assert_close(grads, _stacked(lambda i: _by_autograd(module, wanted(i).square().sum())))


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("mask", [_values(3, 2, 1, 5, 5) > 0, _values(3, 2, 1, 5, 5), None])
def test_attention_has_one_mask_for_each_member(mask, heads):
    q, k, v = _values(3, 2, 4, 5, 8), _values(3, 2, heads, 5, 8, seed=1), _values(3, 2, heads, 5, 8, seed=2)

    def run(q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=heads == 2)

    def gradient(i):
        own = q[i].clone().requires_grad_()
        return torch.autograd.grad(run(own, k[i], v[i], mask if mask is None else mask[i]).square().sum(), own)[0]

    grads = tp.vmap(tp.grad(lambda *args: run(*args).square().sum()))(q, k, v, mask)
    torch.testing.assert_close(grads, _stacked(gradient))

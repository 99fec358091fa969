"""Jacobians that know which coordinates a value depends on: right for every structure, and small where they can be."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpure as tp
from torchpure.operators import _second_order, _sparse
from torchpure.operators.jacobians import Part, dense_rows, identity_part, merge_parts

D = torch.float64
X = torch.linspace(-1.0, 1.3, 12, dtype=D).reshape(4, 3).sin()  # 4 particles in 3 dimensions
W = torch.linspace(-0.9, 0.8, 15, dtype=D).reshape(5, 3).cos()
V = torch.linspace(-0.5, 0.9, 25, dtype=D).reshape(5, 5).sin()


def _features(x):
    return torch.tanh(F.linear(x, W, W[:, 0]))  # (4, 5)


def _pairs(x):
    return x[:, None] - x[None]  # (4, 4, 3)


def _attend(h):
    weights = torch.softmax(h @ V @ h.T / 2, -1)
    return (weights @ h).square().sum()


class _Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.first, self.norm, self.last = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 1)

    def forward(self, x):
        h = torch.tanh(self.first(x))[None]
        h = self.norm(h + self.attention(h, h, h, need_weights=False)[0])
        return self.last(h.tanh()).sum()


def _encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = tp.functional(_Encoder().double())
    return lambda x: net(net.params, x)


def _heads(**asked):
    """Multi-head attention of one unbatched sequence; the sum of the results that are asked for."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = tp.functional(nn.MultiheadAttention(6, 2).double())
    parameters = torch.linspace(-1, 1, 18, dtype=D).reshape(6, 3)
    padding = torch.tensor([False, False, False, True])

    def run(x):
        h = torch.tanh(F.linear(x, parameters))
        out, shares = net(net.params, h, h.sin(), h, key_padding_mask=padding, **asked)
        return out.square().sum() + (0 if shares is None else shares.square().sum())

    return run


FUNCTIONS = {
    "unbatched heads": _heads(need_weights=False),
    "unbatched heads and their weights": _heads(average_attn_weights=False),
    "features": lambda x: _features(x).sum(),
    "features for each particle": lambda x: _features(x),
    "attention": lambda x: _attend(_features(x)),
    "attention of two layers": lambda x: _attend(torch.tanh(torch.softmax(_features(x) @ V @ _features(x).T, -1) @ _features(x))),
    "attention of torch": lambda x: F.scaled_dot_product_attention(*(_features(x)[None],) * 3).square().sum(),
    "encoder": _encoder(),
    "flat coordinates": lambda x: _attend(_features(x.reshape(12).reshape(4, 3))),
    "flat features": lambda x: _features(x).flatten().cumsum(0).square().sum(),
    "other axes": lambda x: (_features(x).sum(1) * x.reshape(12)[:4].reshape(2, 2).flatten()).prod() + x.reshape(2, 6).square().sum(1).prod(),
    "distances": lambda x: (_pairs(x).square().sum(-1) + 0.1).sqrt().sum(),
    "pairs and attention": lambda x: (torch.exp(-_pairs(x).square().sum(-1)) @ _features(x)).prod(),
    "sum of a product of pairs": lambda x: torch.einsum("ic,jc->ij", x.sin(), x.cos()).square().sum(),
    "outer product": lambda x: (x[:, 0].sin()[:, None] * x[:, 1][None]).tanh().sum(),
    "symmetric outer product": lambda x: (x.sum(1)[:, None] * x.sum(1)).exp(),
    "transposed": lambda x: (x.T.sin() @ _features(x)).square().sum(),
    "permuted and split": lambda x: (_features(x)[None].permute(2, 0, 1).chunk(5)[2] * 3).prod(),
    "joined features": lambda x: torch.cat([_features(x), x.sin()], -1).prod(-1).sum(),
    "joined with means": lambda x: torch.cat([_features(x), _features(x).mean(0, keepdim=True).expand(4, 5)], -1).prod(-1).sum(),
    "stacked": lambda x: torch.stack([x.sin(), 2 * x], 1).prod(1).sum(),
    "one particle": lambda x: _features(x)[1].prod() + x[0, 2] ** 3 + x[1:3].prod(),
    "batched products": lambda x: torch.bmm(_features(x)[:, None], _features(x)[:, :, None] * V[:4, :1, None]).exp().sum(),
    "matrix and vector": lambda x: (torch.mv(_features(x), V[0]).tanh() @ x).sum() + torch.dot(x[:, 0], x[:, 1]),
    "broadcast": lambda x: (x.sum(1, keepdim=True).sin() * x - 2 * x.mean() + (1 - x) / 3).tanh().prod(1),
    "quotients": lambda x: (x / W[:4] / 2 + 3.0 / (x + 4)).square().sum(),
    "sorted": lambda x: _features(x).sort(0).values.square().sum() + _features(x).amax(0).exp().sum(),
    "masked": lambda x: _attend(_features(x).masked_fill(_features(x) > 0, 0.0)),
    "norms": lambda x: _features(x).norm(dim=1).prod() + torch.linalg.vector_norm(x),
    "layer norm": lambda x: F.layer_norm(_features(x), (5,), V[0], V[1]).sin().sum(),
    "log softmax": lambda x: F.log_softmax(_features(x), 1).square().sum(),
    "softmax over particles": lambda x: (_features(x).softmax(0) * x.sum(1, keepdim=True)).square().sum(),
    "determinant": lambda x: torch.linalg.slogdet(_features(x)[:, :4] + torch.eye(4, dtype=D))[1],
    "indexed by a list": lambda x: x[[1, 1]].prod(0) + x[:, [2, 1, 0]].square().prod(1).sum() + x[torch.tensor([0, 1, 3, 3])].prod(0),
    "by keywords": lambda x: torch.sub(other=x.sin(), input=torch.ones(4, 1, dtype=D)).prod(1).sum() + torch.matmul(_features(x), other=V).sum(dim=1).prod()
    + torch.cat(tensors=[x, x.sin()], dim=1).prod(1).sum() + torch.sum(input=x.square()) + F.linear(input=x, weight=W).prod(1).sum(),
    "with another factor": lambda x: torch.sub(x.sin(), x, alpha=2).prod(1) + torch.add(x, x.cos(), alpha=3).prod(1),
    "complex": lambda x: (x * torch.exp(1j * torch.arange(3.0, dtype=D))).square().imag.prod(1) + (x * 1j).exp().real.prod(1),
    "other shape": lambda x: x.view(2, 2, 3).prod(0).sum(),
    "empty": lambda x: (x[:0] ** 2).sum() + x[:, :0].prod(1) + x[:, 1],
    "constant parts": lambda x: torch.cat([torch.ones(4, 1, dtype=D), x], 1).prod(1),
    "convolution": lambda x: F.conv1d(x[None], V[:2, :4, None]).tanh().sum(),
}  # fmt: skip


def _wanted(fn, x):
    hessian = tp.jacfwd(tp.jacfwd(fn))(x)
    return fn(x), tp.jacfwd(fn)(x), hessian.reshape(*hessian.shape[:-4], 12, 12).diagonal(dim1=-2, dim2=-1).sum(-1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sparse_jacobian_gives_the_laplacian(name, monkeypatch):
    monkeypatch.setattr(_second_order, "_nested", None)
    fn = FUNCTIONS[name]
    torch.testing.assert_close(tuple(tp.laplacian(fn, with_value=True)(X)), _wanted(fn, X), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(tp.laplacian(fn)(X), _wanted(fn, X)[2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["attention", "pairs and attention", "encoder", "joined with means"])
def test_gradients_in_the_point_and_many_points(name):
    fn, points = FUNCTIONS[name], torch.stack([X, X.flip(0), X.flip(1)])
    got = tp.grad(lambda x: tp.vmap(tp.laplacian(fn))(x).square().sum())(points)
    wanted = tp.grad(lambda x: tp.vmap(lambda at: _wanted(fn, at)[2])(x).square().sum())(points)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_several_variables_have_jacobians_of_their_own():
    def fn(x, y, t):
        h = torch.tanh(F.linear(x, W) * y[:, None])
        return (h.sum(0) * t + (x.T @ h).sum()).sin().sum() + t**3 * y.prod() + t.sin()

    y, t = torch.tensor([0.3, -0.2, 0.9, 0.5], dtype=D), torch.tensor(0.7, dtype=D)
    flat = torch.cat([X.reshape(12), y, t[None]])
    wanted = tp.hessian(lambda z: fn(z[:12].reshape(4, 3), z[12:16], z[16]))(flat).trace()
    torch.testing.assert_close(tp.laplacian(fn, argnums=(0, 1, 2))(X, y, t), wanted, rtol=1e-10, atol=1e-10)


def _rows_of(fn, monkeypatch):
    """List how many rows the Jacobian of each value has."""
    rows, entry = [], _sparse.SparseTrace._entry

    def watched(self, parts, second):
        made = entry(self, parts, second)
        rows.append(sum(part.num_rows for part in made.parts) if isinstance(made, _sparse.Blocks) else 12)
        return made

    monkeypatch.setattr(_sparse.SparseTrace, "_entry", watched)
    tp.laplacian(fn)(X)
    return rows


def test_features_of_a_particle_have_three_rows(monkeypatch):
    assert _rows_of(_features, monkeypatch) == [1, 3, 3]  # the variable, linear, tanh


def test_scores_of_attention_have_six_rows(monkeypatch):
    def scores(x):
        h = F.linear(x, W)
        return torch.exp((h @ V) @ h.transpose(0, 1))

    assert max(_rows_of(scores, monkeypatch)) == 6


def test_an_identity_is_never_multiplied(monkeypatch):
    """The rows after the first layer are its weights: no product of matrices makes them."""
    products, einsum = [], torch.einsum
    monkeypatch.setattr(torch, "einsum", lambda text, *rest: products.append(len(rest)) or einsum(text, *rest))
    tp.laplacian(lambda x: torch.sin(F.linear(x, W)))(X)
    assert 2 not in products[:1]
    assert products.count(2) <= 1  # the squares of sin


def test_derivatives_after_the_last_nonlinearity_are_not_taken(monkeypatch):
    calls, applied = [], _second_order._applied
    monkeypatch.setattr(_second_order, "below_vmap", lambda form, count: None)  # test_below_vmap.py has these rules
    monkeypatch.setattr(_second_order, "_applied", lambda app, rows: calls.append(app.func) or applied(app, rows))
    fn = lambda x: F.linear(torch.tanh(F.linear(torch.tanh(F.linear(x, W.T @ V @ W)), W)), V)  # noqa: E731
    point = X[0]
    tp.laplacian(fn)(point)
    assert len(calls) == 1  # the layer in the middle
    calls.clear()
    tp.laplacian(fn, with_value=True)(point)
    assert len(calls) == 2


def test_a_constant_that_is_written_later_is_read_as_it_was():
    def fn(x):
        scale = torch.ones(3, dtype=D)
        y = x.sin() * scale
        scale += 1
        z = torch.stack([y, y * 2]) if scale.ndim else y
        return z * scale

    found = tp.laplacian(fn, with_value=True)(X[0])
    torch.testing.assert_close(found.gradient, tp.jacfwd(fn)(X[0]))
    torch.testing.assert_close(found.laplacian, -fn(X[0]))


def test_a_captured_tensor_that_changes_is_read_anew():
    """No plan holds values: a weight that is replaced, written to, or has another shape is the one that is used."""
    held = {"weight": W.clone()}
    fn = lambda x: torch.softmax(torch.tanh(F.linear(x, held["weight"])), -1).square().sum()  # noqa: E731
    operator = tp.laplacian(fn)
    for change in (lambda w: w, lambda w: w.mul_(1.5), lambda w: w.flip(0) * 2, lambda w: torch.cat([w, w])):
        held["weight"] = change(held["weight"])
        torch.testing.assert_close(operator(X), _wanted(fn, X)[2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(operator(X[:2]), tp.hessian(fn)(X[:2]).reshape(6, 6).trace(), rtol=1e-10, atol=1e-10)


def test_parts_add_up_to_all_rows():
    one = identity_part(0, X)
    other = Part(0, (12,), (None,), torch.ones(12, 4, 3, dtype=D))
    eye = torch.eye(12, dtype=D).reshape(12, 4, 3)
    torch.testing.assert_close(dense_rows([one], [12]), eye)
    torch.testing.assert_close(dense_rows(merge_parts([one, other]), [12]), eye + 1)
    torch.testing.assert_close(dense_rows([one], [12, 2])[12:], torch.zeros(2, 4, 3, dtype=D))


@pytest.mark.compile
def test_a_compiled_sparse_laplacian_is_the_eager_one():
    run = tp.value_and_grad(lambda w: tp.laplacian(lambda x: _attend(torch.tanh(F.linear(x, w))))(X).square())
    torch.testing.assert_close(tp.jit(run)(W), run(W), rtol=1e-10, atol=1e-10)
